"""The cast of people: the users app, several users who write to each other, and strangers who look in."""

from __future__ import annotations

from cannery import encode_args
from cannery.apps.users.types import Body, InboxPage, IndexSettings, Profile, RegisterResult, SendResult, Who
from cannery.apps.users.user_index import UserIndex
from cannery.protocol.principal import Principal
from cannery.replica.management import types as t
from tests.sim.builds import SimUser
from tests.sim.failure import Broken
from tests.sim.methods import shape
from tests.sim.programs import module_hash, modules
from tests.sim.requests import Request, person
from tests.sim.world import World

# What is said where nothing was done, and may be a moment later.
PASSING = ("try again later", "wait for responses")


class Person:
    """A user: their mailbox once they are registered, and what they have sent to whom.

    A mailbox that moves has been in `homes`. Guests are people whose mailboxes are deleted: `is_leaving`
    while that is under way. Who `has_custody` controls their own canister.
    """

    def __init__(self, name: str, *, is_guest: bool = False) -> None:
        self.name = name
        self.principal = person(name)
        self.canister: Principal | None = None
        self.register: Request | None = None
        self.letters: list[Letter] = []
        self.past_letters: list[Letter] = []
        self.homes: set[Principal] = set()
        self.may_move = False
        self.is_guest = is_guest
        self.is_leaving = False
        self.has_custody = False

    def move(self, canister: Principal | None) -> None:
        """Have another mailbox, or none."""
        if self.canister is not None:
            self.homes.add(self.canister)
        self.canister = canister
        self.may_move = False

    def leave(self) -> None:
        """Be nobody's user any more; what was written counts no more."""
        self.move(None)
        self.register = None
        self.past_letters += self.letters
        self.letters = []


class Letter:
    """A message: the same id and text in every request that sends it."""

    def __init__(self, to: Person, message_id: bytes, text: str) -> None:
        self.to = to
        self.message_id = message_id
        self.text = text
        self.requests: list[Request] = []
        self.is_safe = False
        self.is_refused = False
        self.is_after_all = True
        self.is_void = False


class People:
    """The users app and its users."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.people = [Person(f"person_{number}") for number in range(world.plan.person_count)]
        self.stranger = person("stranger")

    def setup(self) -> None:
        """Install the index and give it the module of users."""
        world = self.world
        for module in (modules().user, modules().user_next):
            world.manage_now("cannery_module_add", module)
        world.manage_now("cannery_module_add", modules().index)
        made = world.manage_now(
            "provisional_create_canister_with_cycles", t.ProvisionalCreateArgs(amount=10**14)
        )
        assert isinstance(made, t.CanisterIdRecord)
        self.index = made.canister_id
        install = t.InstallChunkedCodeArgs(
            t.InstallMode.install(), self.index, None, [], module_hash(modules().index), encode_args()
        )
        world.manage_now("install_chunked_code", install)
        world.call(world.operator, self.index, shape(UserIndex, "configure"), IndexSettings(10_000))
        for version, module in enumerate((modules().user, modules().user_next), 1):
            add = shape(UserIndex, "fleet_release_add")
            world.call(world.operator, self.index, add, "user", version, module_hash(module), "of the plan")

    # --- what happens

    def act(self) -> None:
        """Let somebody do something, by chance."""
        world, chance = self.world, self.world.chance
        who = chance.choice(self.people)
        if who.is_leaving:
            return
        if who.canister is None:
            self._register(who)
        elif chance.random() < 0.7:
            self._send(who)
        elif chance.random() < 0.5:
            self._read(who)
        elif chance.random() < 0.3:
            world.send(who.principal, who.canister, shape(SimUser, "acknowledge"), chance.randint(0, 5))
        if chance.random() < world.plan.operate_rate / 6:
            self._operate(who)
        if chance.random() < world.plan.probe_rate:
            self._probe(who)

    def _register(self, who: Person) -> None:
        if who.register is None or who.register.state != "open" or self.world.chance.random() < 0.2:
            who.register = self.world.send(
                who.principal,
                self.index,
                shape(UserIndex, "register"),
                who.name,
                on_end=lambda request: self._registered(who, request),
            )

    def _registered(self, who: Person, request: Request) -> None:
        if request.state != "replied":
            return
        result = request.value
        assert isinstance(result, RegisterResult)
        if result.tag == "ok":
            found = result.ok.canister
            if who.canister == found or found in who.homes:
                return
            if who.canister is not None and not who.may_move:
                raise Broken("each call runs once", f"{who.name} has two canisters")
            who.move(found)
            self.fund(found)
        elif result.tag == "failed" and any(text in result.failed for text in PASSING):
            # A queue to where canisters are made is full, or too many calls to there are in flight: nothing
            # was made, and a later call may do it.
            return
        elif result.tag != "in_progress" and not self.world.plan.has_prices:
            raise Broken("people can register", f"{who.name}: {result}")

    def fund(self, canister: Principal) -> None:
        """Give a mailbox cycles, where they are needed."""
        if self.world.plan.has_prices:
            self.world.manage("provisional_top_up_canister", t.ProvisionalTopUpArgs(canister, 10**12))

    def _send(self, who: Person) -> None:
        chance = self.world.chance
        unsure = [letter for letter in who.letters if not letter.is_safe and not letter.is_refused]
        if unsure and chance.random() < 0.4:
            letter = chance.choice(unsure)
            if letter.to.canister is not None:
                self._send_letter(who, letter)
            return
        to = chance.choice(self.people)
        if to is who or to.canister is None or to.is_leaving:
            return
        text = self.world.secrets.text_for(who.principal, to.principal)
        letter = Letter(to, text.encode(), text * chance.randint(1, 4))
        # Its place in the order is certain where all that went before is safe already.
        letter.is_after_all = not unsure
        who.letters.append(letter)
        self._send_letter(who, letter)

    def _send_letter(self, who: Person, letter: Letter) -> None:
        assert who.canister is not None
        assert letter.to.canister is not None
        chance = self.world.chance
        target = Who.username(letter.to.name)
        if chance.random() >= 0.5 and not letter.to.is_guest:
            # A guest's canister may be another one's by now, and whoever names it means that one.
            target = Who.canister(letter.to.canister)
        letter.requests.append(
            self.world.send(
                who.principal,
                who.canister,
                shape(SimUser, "send"),
                target,
                letter.message_id,
                Body.text(letter.text),
                on_end=lambda request: self._sent(who, letter, request),
            )
        )

    def _sent(self, who: Person, letter: Letter, request: Request) -> None:
        if request.state != "replied":
            return
        result = request.value
        assert isinstance(result, SendResult)
        if result.tag == "ok":
            letter.is_safe = True
            if result.ok.state.tag == "delivered" and self.world.chance.random() < 0.5:
                self._check_readable(letter, result.ok.state.delivered)

    def _check_readable(self, letter: Letter, id: int) -> None:
        """A message whose delivery was acknowledged stands in the receiver's mailbox."""
        if letter.to.canister is None or letter.is_void:
            return
        result = self.world.query(letter.to.principal, letter.to.canister, shape(SimUser, "inbox"), id, 1)
        if result is None or result.reject is not None:
            return
        page = shape(SimUser, "inbox").decode_results(result.reply)
        assert isinstance(page, InboxPage)
        if [(m.id, m.body.text) for m in page.messages] != [(id, letter.text)]:
            raise Broken(
                "acknowledged implies readable",
                f"message {id} of {letter.to.name} is not {letter.text}: {page}",
            )

    def _read(self, who: Person) -> None:
        assert who.canister is not None
        self.world.query(who.principal, who.canister, shape(SimUser, "inbox"), 0, 10)

    def _operate(self, who: Person) -> None:
        world, chance = self.world, self.world.chance
        if who.canister is None:
            return
        named = t.CanisterIdRecord(who.canister)
        sender = who.principal if who.has_custody else self.index
        draw = chance.random()
        if draw < 0.35:
            world.manage("stop_canister", named, sender=sender)
        elif draw < 0.75:
            world.manage("start_canister", named, sender=sender)
        else:
            code = module_hash(chance.choice((modules().user, modules().user_next)))
            args = t.InstallChunkedCodeArgs(
                t.InstallMode.upgrade(None), who.canister, None, [], code, encode_args()
            )
            world.manage("install_chunked_code", args, sender=sender)

    def _probe(self, victim: Person) -> None:
        """Try, as a stranger or as another user, what only the owner may."""
        world, chance = self.world, self.world.chance
        if victim.canister is None:
            return
        others = [who.principal for who in self.people if who is not victim]
        prober = chance.choice([self.stranger, self.stranger, Principal.anonymous(), *others])
        name = chance.choice(("inbox", "inbox_newest", "sent_messages", "usage", "owner", "blocked_users"))
        args: dict[str, tuple[object, ...]] = {
            "inbox": (0, 100),
            "inbox_newest": (None, 100),
            "sent_messages": (None, 100),
        }
        method = shape(SimUser, name)
        if chance.random() < 0.5:
            result = world.query(prober, victim.canister, method, *args.get(name, ()))
            if result is not None and result.reject is None and name != "owner":
                raise Broken("no message is visible to a non-member", f"{name} answered {prober}")
            return
        if chance.random() < 0.5:
            outside = chance.choice(("receiver_found", "sender_found", "outbox.settled", "outbox.retry"))
            request = world.send_raw(prober, victim.canister, outside, encode_args())
        else:
            request = world.send(prober, victim.canister, method, *args.get(name, ()))
        request.on_end = self._probed

    def _probed(self, request: Request) -> None:
        if request.state == "replied":
            raise Broken("no message is visible to a non-member", f"{request.ingress.method} was answered")

    def find(self, who: Person) -> None:
        """Look up where somebody's mailbox is, as a client does that is told it has moved."""
        method = shape(UserIndex, "lookup")
        result = self.world.query(who.principal, self.index, method, Who.owner(who.principal))
        if result is None or result.reject is not None or who.canister is None:
            return
        profile = method.decode_results(result.reply)
        if profile is not None and profile.canister not in (*who.homes, who.canister):  # type: ignore[attr-defined]
            if not who.may_move:
                raise Broken("each call runs once", f"{who.name} has another mailbox without being asked")
            who.move(profile.canister)  # type: ignore[attr-defined]
            who.may_move = True

    # --- what is left

    def settle(self) -> None:
        """Start everything, so that what waits can come to its end."""
        world = self.world
        world.manage_now("start_canister", t.CanisterIdRecord(self.index))
        for who in self.people:
            lookup = shape(UserIndex, "lookup")
            if (
                who.is_guest
                and world.call(who.principal, self.index, lookup, Who.owner(who.principal)) is None
            ):
                who.leave()
            self.find(who)
            if who.canister is not None:
                if world.plan.has_prices:
                    world.manage_now(
                        "provisional_top_up_canister", t.ProvisionalTopUpArgs(who.canister, 10**13)
                    )
                self._start(who, who.canister)

    def _start(self, who: Person, canister: Principal) -> None:
        """Start a mailbox, by its index, or by its owner, who may have custody without being told."""
        world, named = self.world, t.CanisterIdRecord(canister)
        request = world.manage("start_canister", named, sender=self.index)
        world.run_out(lambda: request.state == "open")
        if request.state != "replied":
            world.manage_now("start_canister", named, sender=who.principal)
            who.has_custody = True

    def check(self) -> None:
        """Compare all mailboxes with what was sent. Raises `Broken`."""
        for who in self.people:
            self.find(who)
        registered = self._registered_people()
        for who in self.people:
            if who.canister is not None:
                if registered.get(who.principal) != who.canister:
                    raise Broken("acknowledged implies readable", f"the index has lost {who.name}")
                self._check_mailbox(who)

    def _registered_people(self) -> dict[Principal, Principal]:
        result = self.world.query(self.stranger, self.index, shape(UserIndex, "page"), None, 500)
        assert result is not None
        assert result.reject is None, result.reject
        page = shape(UserIndex, "page").decode_results(result.reply)
        profiles: list[Profile] = page.profiles  # type: ignore[attr-defined]
        return {profile.owner: profile.canister for profile in profiles}

    def _check_mailbox(self, who: Person) -> None:
        assert who.canister is not None
        result = self.world.query(who.principal, who.canister, shape(SimUser, "inbox"), 0, 500)
        assert result is not None
        if result.reject is not None:
            raise Broken("everything can be read", f"{who.name}: {result.reject.message}")
        page = shape(SimUser, "inbox").decode_results(result.reply)
        assert isinstance(page, InboxPage)
        texts: dict[Principal, list[str]] = {}
        for message in page.messages:
            texts.setdefault(message.sender, []).append(message.body.text)
        for sender in self.people:
            self._check_letters(sender, who, texts.pop(sender.principal, []))
        if texts:
            raise Broken("exactly once between canisters", f"{who.name} has mail of nobody: {texts}")

    def _check_letters(self, sender: Person, who: Person, found: list[str]) -> None:
        letters = [letter for letter in (*sender.past_letters, *sender.letters) if letter.to is who]
        if len(set(found)) != len(found):
            raise Broken("exactly once between canisters", f"{who.name} has a message twice: {found}")
        known = {letter.text: letter for letter in letters}
        for text in found:
            if text not in known:
                raise Broken("exactly once between canisters", f"{who.name} has what nobody sent: {text}")
            if all(request.state == "refused" for request in known[text].requests):
                raise Broken("a refused request has no effect", f"{who.name} has {text}")
        places = {text: place for place, text in enumerate(found)}
        before = -1
        for letter in letters:
            place = places.get(letter.text)
            if place is None:
                if letter.is_safe and not letter.is_void:
                    raise Broken("acknowledged implies readable", f"{who.name} never got {letter.text}")
                continue
            if letter.is_after_all and not letter.is_void and place < before:
                raise Broken("one total order", f"{letter.text} overtook in {who.name}'s mailbox: {found}")
            before = max(before, place)
