"""The cast of peers: payments, journals, alarms, cycles, runaways, and operators who stop and replace them.

Some peers are mortal: they are stopped by force, reinstalled and deleted while they are being paid. What the
nursery makes joins the peers.
"""

from __future__ import annotations

from cannery.candid.codec import encoder
from cannery.candid.types import Nat64
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.management import types as t
from tests.sim.canisters import Books, Nursery, Payment, Peer
from tests.sim.failure import Broken
from tests.sim.methods import shape
from tests.sim.programs import module_hash, modules
from tests.sim.requests import Request, person
from tests.sim.stage import create, install
from tests.sim.world import World

TOKENS = 1_000
RICH = 10**12
POOR = 3_000_000
MODES = ("plain", "plain", "plain", "relays", "relays", "rejects", "traps", "payer_traps")
UNSAID = frozenset({"fall", "spin", "recurse"})


class Peers:
    """Peers, their clients and their operator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.peers: list[Principal] = []
        self.mortal: set[Principal] = set()
        self.sent: list[Request] = []
        self.tag = 0
        self.client = person("client of peers")

    def setup(self) -> None:
        """Make the canisters that are there from the start."""
        world = self.world
        for module in (modules().peer, modules().peer_next, modules().nursery):
            world.manage_now("cannery_module_add", module)
        self.hashes = [module_hash(modules().peer), module_hash(modules().peer_next)]
        for number in range(world.plan.peer_count):
            cycles = RICH if number == 0 or world.chance.random() < 0.7 else POOR
            self.peers.append(self._create(modules().peer, encoder((Nat64(),))((TOKENS,)), cycles, number))
        if world.chance.random() < 0.5:
            self.mortal.add(self.peers[-1])
        from cannery import encode_args

        self.nursery = self._create(modules().nursery, encode_args(self.hashes[0]), RICH, 0)
        self.born: dict[Principal, int] = {}

    def _create(self, module: bytes, arg: bytes, cycles: int, place: int) -> Principal:
        world = self.world
        canister = create(world, cycles, place)
        install(world, canister, module, arg)
        return canister

    # --- what happens

    def act(self) -> None:
        """Do one thing, by chance."""
        world, chance = self.world, self.world.chance
        draw = chance.random()
        if draw < 0.4:
            self._pay()
        elif draw < 0.7:
            self._bump()
        elif draw < 0.76:
            self._ask("alarm", chance.choice(self.peers), self._next(), chance.randint(0, 5_000))
        elif draw < 0.82:
            self._ask(
                chance.choice(("fall", "fall", "spin", "recurse")), chance.choice(self.peers), self._next()
            )
        elif draw < 0.85:
            self._ask("create", self.nursery, self._next(), chance.randint(1, 3))
        elif draw < 0.88:
            self._ask(
                "donate", chance.choice(self.peers), chance.choice(self.peers), chance.randint(0, 10**9)
            )
        if chance.random() < world.plan.operate_rate / 4:
            self._operate()

    def _next(self) -> int:
        self.tag += 1
        return self.tag

    def _ask(self, name: str, canister: Principal, *args: object, **notes: object) -> Request:
        cls = Nursery if name == "create" else Peer
        on_end = self._created if name == "create" else self._bumped if name in ("bump", "shed") else None
        request = self.world.send(self.client, canister, shape(cls, name), *args, on_end=on_end, **notes)
        request.notes.update(name=name, canister=canister, args=args)
        self.sent.append(request)
        return request

    def _bump(self) -> None:
        chance = self.world.chance
        if chance.random() < 0.05:
            self._ask("shed", chance.choice(self.peers), self._next())
            return
        size = chance.randint(1, 3_000) if chance.random() < 0.1 else 0
        self._ask("bump", chance.choice(self.peers), self._next(), size)

    def _bumped(self, request: Request) -> None:
        """What was acknowledged can be read at once."""
        world = self.world
        canister = request.notes["canister"]
        assert isinstance(canister, Principal)
        if request.state != "replied" or canister in self.mortal or world.chance.random() < 0.5:
            return
        result = world.query(self.client, canister, shape(Peer, "entry"), request.value)
        if result is None or result.reject is not None:
            return
        (args,) = (request.notes["args"],)
        assert isinstance(args, tuple)
        found = shape(Peer, "entry").decode_results(result.reply)
        if found != args[0]:
            raise Broken("acknowledged implies readable", f"entry {request.value} is {found}, not {args[0]}")

    def _pay(self) -> None:
        chance = self.world.chance
        payer, to, via = (chance.choice(self.peers) for _ in range(3))
        mode = chance.choice(MODES)
        payment = Payment(
            self._next(), to, via, chance.randint(1, 60), chance.choice((0, 0, 10, 5_000, 10**7)), mode
        )
        self._ask("pay", payer, payment)

    def _created(self, request: Request) -> None:
        if request.state == "replied":
            assert isinstance(request.value, list)
            args = request.notes["args"]
            assert isinstance(args, tuple)
            for child in request.value:
                self.born[child] = args[0]
                if len(self.peers) < 10:
                    self.peers.append(child)

    def _operate(self) -> None:
        """Do what operators and controllers do meanwhile."""
        world, chance = self.world, self.world.chance
        peer = chance.choice(self.peers)
        owner = self.nursery if peer in self.born else world.operator
        named = t.CanisterIdRecord(peer)
        draw = chance.random()
        if draw < 0.3:
            world.manage("stop_canister", named, sender=owner)
        elif draw < 0.6:
            world.manage("start_canister", named, sender=owner)
        elif draw < 0.8:
            world.manage(*self._upgrade(peer), sender=owner)
        elif draw < 0.9:
            world.manage(
                "provisional_top_up_canister", t.ProvisionalTopUpArgs(peer, chance.randint(0, 10**10))
            )
        elif peer in self.mortal:
            self._strike(peer, owner)

    def _upgrade(self, peer: Principal) -> tuple[str, object]:
        code = self.world.chance.choice((modules().peer, modules().peer_next))
        arg = encoder((Nat64(),))((0,))
        return self.world.installing(t.InstallMode.upgrade(None), peer, code, arg)

    def _strike(self, peer: Principal, owner: Principal) -> None:
        """Stop a mortal peer by force, empty it or delete it."""
        world = self.world
        draw = world.chance.random()
        self.say = f"strike {peer}"
        if draw < 0.4:
            world.manage("cannery_stop_canister", t.StopArgs(peer, True), sender=owner)
        elif draw < 0.6:
            arg = encoder((Nat64(),))((TOKENS,))
            mode = t.InstallMode.reinstall()
            world.manage(*world.installing(mode, peer, modules().peer, arg), sender=owner)
        elif draw < 0.8:
            world.manage("uninstall_code", t.VersionedCanisterId(peer), sender=owner)
        else:
            world.manage("delete_canister", t.CanisterIdRecord(peer), sender=owner)

    # --- what is left

    def settle(self) -> None:
        """Start and fund everything, so that what waits can come to its end."""
        world = self.world
        for canister in [*self.peers, self.nursery]:
            if canister not in self.mortal:
                world.manage_now("provisional_top_up_canister", t.ProvisionalTopUpArgs(canister, RICH))
                world.manage_now("start_canister", t.CanisterIdRecord(canister))

    def check(self) -> None:
        """Compare the books of all peers with what was asked and answered. Raises `Broken`."""
        books = {peer: self._books(peer) for peer in self.peers if peer not in self.mortal}
        self._check_journals(books)
        self._check_payments(books)
        self._check_order(books)
        self._check_alarms(books)
        self._check_children()

    def _books(self, peer: Principal) -> Books:
        owner = self.nursery if peer in self.born else self.world.operator
        result = self.world.query(owner, peer, shape(Peer, "books"))
        assert result is not None
        if result.reject is not None:
            raise Broken("everything can be read", f"{peer}: {result.reject.message}")
        books = shape(Peer, "books").decode_results(result.reply)
        assert isinstance(books, Books)
        return books

    def _check_journals(self, books: dict[Principal, Books]) -> None:
        order = self.world.order_of_requests()
        known = {args[0]: request for request, args in self._requests("bump", "shed")}
        for peer, book in books.items():
            if len(set(book.journal)) != len(book.journal):
                raise Broken("each call runs once", f"{peer} has an entry twice: {book.journal}")
            places = []
            for index, tag in enumerate(book.journal):
                request = known.get(tag)
                if request is None:
                    raise Broken("a trap leaves no trace", f"{peer} has {tag}, which was never kept")
                if request.state in ("rejected", "refused"):
                    raise Broken("a refused request has no effect", f"{peer} has {tag}: {request}")
                if request.state == "replied" and request.value != index:
                    raise Broken("one total order", f"{peer} answered {request.value} for entry {index}")
                places.append(order[request.id])
            if places != sorted(places):
                raise Broken("one total order", f"{peer} has run calls in another order than that of blocks")
            self._check_acknowledged(peer, book, known)

    def _check_acknowledged(self, peer: Principal, book: Books, known: dict[int, Request]) -> None:
        kept = set(book.journal)
        for tag, request in known.items():
            if request.state == "replied" and request.notes["canister"] == peer and tag not in kept:
                raise Broken("acknowledged implies readable", f"{peer} has lost entry {tag}")

    def _requests(self, *names: str) -> list[tuple[Request, tuple[int, ...]]]:
        found = []
        for request in self.sent:
            args = request.notes["args"]
            if request.notes["name"] in names:
                assert isinstance(args, tuple)
                found.append((request, args))
        return found

    def _check_payments(self, books: dict[Principal, Books]) -> None:
        ends = {tag: end for book in books.values() for tag, end in book.outgoing}
        came: dict[int, int] = {}
        for book in books.values():
            for tag, number in book.received:
                came[tag] = came.get(tag, 0) + number
        expected = sum(TOKENS for _ in books)
        is_strict = not self.world.plan.has_prices
        for request, (payment,) in self._requests("pay"):
            assert isinstance(payment, Payment)
            end, number = ends.get(payment.tag), came.pop(payment.tag, 0)
            is_whole = not self.mortal & {request.notes["canister"], payment.to, payment.via}
            if number > 1:
                raise Broken("exactly once between canisters", f"{payment} came {number} times")
            if not is_whole:
                # What the dead have had or given is not counted.
                expected += self._of_the_dead(request, payment, end, number, books)
                continue
            if number == 1 and end is None:
                raise Broken("exactly once between canisters", f"{payment} came, and its payer knows nothing")
            if end == "paid" and number == 0:
                raise Broken("exactly once between canisters", f"{payment} is paid and never came")
            if is_strict and end == "refunded" and number == 1:
                raise Broken("exactly once between canisters", f"{payment} came and was refunded")
            if is_strict and end == "open" and payment.mode != "payer_traps":
                raise Broken("every call is answered", f"{payment} is still open")
            if request.state == "replied" and request.value != "poor" and end is None:
                raise Broken("acknowledged implies readable", f"{payment} has no trace at its payer")
            if request.state == "refused" and end is not None:
                raise Broken("a refused request has no effect", f"{payment} is {end}")
            if end in ("open", "paid"):
                expected -= payment.amount
            if end == "refunded":
                pass
            expected += payment.amount * number
        if came:
            raise Broken("exactly once between canisters", f"payments that nobody made: {came}")
        held = sum(book.tokens for book in books.values())
        if held != expected:
            raise Broken("exactly once between canisters", f"{held} tokens are held, {expected} were made")

    def _check_order(self, books: dict[Principal, Books]) -> None:
        """What one peer has sent to another came in that order."""
        for payer, sent in books.items():
            places = {tag: place for place, tag in enumerate(sent.sent)}
            direct = {
                payment.tag
                for request, (payment,) in self._requests("pay")
                if request.notes["canister"] == payer and payment.mode != "relays"
            }
            for to, book in books.items():
                came = [places[tag] for tag in book.came if tag in direct and tag in places]
                if came != sorted(came):
                    raise Broken("one total order", f"{to} got payments of {payer} in another order")

    def _of_the_dead(
        self, request: Request, payment: Payment, end: str | None, number: int, books: dict[Principal, Books]
    ) -> int:
        given = payment.amount if end in ("open", "paid") and request.notes["canister"] in books else 0
        return payment.amount * number - given

    def _check_alarms(self, books: dict[Principal, Books]) -> None:
        rang = {tag: number for book in books.values() for tag, number in book.rang}
        for request, (tag, _) in self._requests("alarm"):
            number = rang.pop(tag, 0)
            if number > 1 or (number and request.state in ("rejected", "refused")):
                raise Broken("timers fire once", f"alarm {tag} rang {number} times: {request}")
            if request.state == "replied" and not number and self._rings(request):
                raise Broken("acknowledged implies readable", f"alarm {tag} never rang")
        if rang:
            raise Broken("a trap leaves no trace", f"alarms that nobody set: {rang}")
        for peer in books:
            left = self.world.pairs(*keys.owned_range(keys.TIMERS, peer.raw))
            if left and not self.world.plan.has_prices:
                raise Broken("timers fire once", f"{len(left)} alarms of {peer} are left")

    def _rings(self, request: Request) -> bool:
        return not self.world.plan.has_prices and request.notes["canister"] not in self.mortal

    def _check_children(self) -> None:
        world = self.world
        result = world.query(self.client, self.nursery, shape(Nursery, "known"))
        assert result is not None
        assert result.reject is None, result.reject
        known = shape(Nursery, "known").decode_results(result.reply)
        assert isinstance(known, list)
        missing = set(self.born) - {child for child, _ in known}
        if missing:
            raise Broken("acknowledged implies readable", f"the nursery has lost {missing}")
        counts: dict[int, int] = {}
        for _, tag in known:
            counts[tag] = counts.get(tag, 0) + 1
        for _, (tag, count) in self._requests("create"):
            if counts.get(tag, 0) > count:
                raise Broken("each call runs once", f"order {tag} of {count} made {counts[tag]}")
