"""What can go wrong for a client, one class per thing that its caller can do about it."""

from __future__ import annotations

from cannery.errors import CanneryError


class ClientError(CanneryError):
    """Base of the client's errors."""


class Rejected(ClientError):
    """The canister or the node answered with a reject.

    `certified` says whether the reject is signed by the subnet: then the call is settled, it ran or was
    turned away for good. An uncertified reject of a call means that the node did not take it in.
    """

    def __init__(self, code: int, message: str, *, certified: bool, error_code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.certified = certified
        self.error_code = error_code


class Refused(ClientError):
    """The node did not accept the request as such (HTTP status 4xx); nothing ran."""

    def __init__(self, http_status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.message = message


class Unreachable(ClientError):
    """The node cannot be reached. `request_id` is set where a call may have arrived."""

    def __init__(self, message: str, *, request_id: bytes | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class Unverified(ClientError):
    """An answer is not signed by whom it must be signed; nothing in it is to be believed."""


class Expired(ClientError):
    """A call did not settle in time; `ran` says what is known: False never ran, True ran, None still open."""

    def __init__(self, message: str, *, request_id: bytes, ran: bool | None) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.ran = ran
