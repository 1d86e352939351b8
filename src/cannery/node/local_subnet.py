"""The subnet port in one process: a gateway beside its subnet, for small installations and tests."""

from __future__ import annotations

import asyncio

from cannery.errors import Reject, RejectCode, StoreError
from cannery.node.answers import answered, ingress_of, read_values, rejected, run_query
from cannery.node.driver import SubnetDriver
from cannery.node.handover import IngressMessage, QueryDone, QueryMessage, Refused, StateRead, Values
from cannery.node.service import Subnet
from cannery.node.settling import Submissions
from cannery.node.submitted import Durable, Known, Refusing, Waiting
from cannery.node.subnet_port import Submission
from cannery.node.vitals import Vitals


class LocalSubnet:
    """Behind `SubnetPort`. Make it on the loop that serves the gateway; `close` closes the subnet too."""

    def __init__(self, subnet: Subnet) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._submissions = Submissions(loop)
        self._driver = SubnetDriver(subnet, loop, self._deliver)
        self._id = 0

    def submit(self, ingress: IngressMessage) -> Submission:
        self._id += 1
        id = self._id
        submission = self._submissions.add(id, ingress)
        try:
            found = self._driver.subnet.submit(ingress_of(ingress), id)
        except StoreError as error:
            found = Refusing(Reject(RejectCode.SYS_TRANSIENT, str(error)))
        match found:
            case Refusing(reject):
                self._submissions.refuse(Refused(id, int(reject.code), reject.message, reject.error_code))
            case Known(time_ns, answer):
                self._submissions.settle(time_ns, [(id, answered(answer, None))])
            case Waiting(is_accepted=True):
                self._submissions.accept(id)
        self._driver.wake()
        return submission

    async def ask(self, query: QueryMessage) -> QueryDone:
        done: asyncio.Future[QueryDone] = self._loop.create_future()

        def job() -> None:
            subnet = self._driver.subnet
            try:
                found = run_query(subnet, 0, query, None)
            except StoreError as error:
                answer = rejected(Reject(RejectCode.SYS_TRANSIENT, str(error)))
                found = QueryDone(0, subnet.time_ns, answer)
            if not done.done():
                done.set_result(found)

        if not self._driver.ask(job):
            busy = Reject(RejectCode.SYS_TRANSIENT, "the node is busy with queries: try again in a moment")
            return QueryDone(0, self._driver.subnet.time_ns, rejected(busy))
        return await done

    async def read(self, read: StateRead) -> Values:
        return read_values(self._driver.subnet, 0, read)

    async def measure(self) -> str:
        return self._driver.subnet.measure()

    async def examine(self) -> Vitals:
        return self._driver.subnet.vitals()

    async def close(self) -> None:
        await self._driver.stop()
        self._submissions.refuse_all()

    def _deliver(self, durable: Durable) -> None:
        for ticket in durable.accepted:
            assert isinstance(ticket, int), "tickets are made in this module"
            self._submissions.accept(ticket)
        answers = []
        for ticket, answer in durable.settled:
            assert isinstance(ticket, int), "tickets are made in this module"
            answers.append((ticket, answered(answer, None)))
        self._submissions.settle(durable.time_ns, answers)
