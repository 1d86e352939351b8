"""Python source from an archive, loaded under a private package name: many versions of one program side by
side.

Every module of the archive gets its own `__import__`: a name that the archive holds means the archive's
module, also when the import runs late, inside a method; everything else must be on the list of allowed
imports. The modules stand in `sys.modules` under their private names, because `dataclasses` and `typing` look
there, and leave it on `discard`.

This keeps versions apart and authors to the rules of deterministic code. It is no sandbox: Python canisters
are trusted code.
"""

from __future__ import annotations

import builtins
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Final, NoReturn

_INSTEAD: Final = {
    "breakpoint": "a canister cannot be stopped in a debugger; test it with cannery.testing",
    "help": "a canister has no terminal",
    "input": "a canister has no terminal; take an argument",
    "open": "a canister has no files; keep data in stable collections",
    "print": "a canister has no terminal; use ctx.log(...)",
}
_STATEFUL: Final = (list, dict, set, bytearray, deque, Iterator)


class PrivatePackage:
    """The modules of one archive. `files` maps paths such as `pkg/__init__.py` to their source."""

    def __init__(self, name: str, files: Mapping[str, bytes], is_allowed: Callable[[str], bool]) -> None:
        self._name = name
        self._files = {
            _module_name(path): (path, data) for path, data in files.items() if path.endswith(".py")
        }
        self._folders = {
            ".".join(parts[:depth])
            for parts in (module.split(".") for module in self._files)
            for depth in range(1, len(parts))
        }
        self._is_allowed = is_allowed
        self._modules: dict[str, ModuleType] = {}
        self._builtins = {
            **vars(builtins),
            **{name: _refusal(name, text) for name, text in _INSTEAD.items()},
            "__import__": self._import,
        }

    def load_class(self, entry: str) -> type:
        """Import `module:Class` and give the class. Raises ImportError, or whatever the source raises."""
        module_name, _, class_name = entry.partition(":")
        if module_name not in self._files:
            raise ImportError(f"there is no module {module_name!r} in the archive")
        found: object = None
        try:
            found = getattr(self._load(module_name), class_name, None)
        finally:
            if not isinstance(found, type):
                self.discard()
        if not isinstance(found, type):
            raise ImportError(f"module {module_name!r} has no class {class_name!r}")
        return found

    def discard(self) -> None:
        """Take the modules out of `sys.modules`. What still runs keeps what it holds."""
        for module in self._modules.values():
            sys.modules.pop(module.__name__, None)

    # --- import, as the archive's modules see it

    def _import(
        self,
        name: str,
        caller: Mapping[str, object] | None = None,
        _locals: Mapping[str, object] | None = None,
        fromlist: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> ModuleType:
        full = self._absolute(name, caller, level) if level else name
        if not self._holds(full):
            if level:
                raise ImportError(f"there is no module {full!r} in the archive")
            parts = [f"{full}.{item}" for item in fromlist or ()]
            if not self._is_allowed(full) and not (parts and all(map(self._is_allowed, parts))):
                raise ImportError(f"import of {full!r} is not allowed in a canister")
            return builtins.__import__(full, None, None, fromlist or (), 0)
        module = self._load(full)
        if fromlist:
            for item in fromlist:
                if not hasattr(module, item) and self._holds(f"{full}.{item}"):
                    self._load(f"{full}.{item}")
            return module
        top = full.partition(".")[0]
        if not self._holds(top):
            raise ImportError(f"write 'from {full} import ...' instead of 'import {full}'")
        return self._load(top)

    def _absolute(self, name: str, caller: Mapping[str, object] | None, level: int) -> str:
        package = str((caller or {}).get("__package__") or "")
        parts = package.split(".")[1:]
        if level - 1 > len(parts) or not package:
            raise ImportError("a relative import beyond the top of the archive")
        parts = parts[: len(parts) - (level - 1)]
        return ".".join([*parts, name] if name else parts)

    def _holds(self, name: str) -> bool:
        if name in self._files:
            return True
        return name in self._folders and not self._is_allowed(name)

    def _load(self, name: str) -> ModuleType:
        loaded = self._modules.get(name)
        if loaded is not None:
            return loaded
        parent, _, own = name.rpartition(".")
        parent_module = self._load(parent) if parent and self._holds(parent) else None
        loaded = self._modules.get(name)
        if loaded is None:
            loaded = self._execute(name)
        if parent_module is not None:
            setattr(parent_module, own, loaded)
        return loaded

    def _execute(self, name: str) -> ModuleType:
        full = f"{self._name}.{name}"
        path, source = self._files.get(name, ("", b""))
        is_package = not path or path.endswith("__init__.py")
        module = ModuleType(full)
        module.__dict__["__builtins__"] = self._builtins
        module.__package__ = full if is_package else full.rpartition(".")[0]
        if is_package:
            module.__path__ = []
        code = compile(source, path, "exec", dont_inherit=True)
        self._modules[name] = sys.modules[full] = module
        is_loaded = False
        try:
            exec(code, module.__dict__)
            _refuse_state(module)
            is_loaded = True
        finally:
            if not is_loaded:
                del self._modules[name]
                sys.modules.pop(full, None)
        return module


def _refuse_state(module: ModuleType) -> None:
    """Raise ImportError where a module's names hold what changes as it is used: messages would share it."""
    for name, value in module.__dict__.items():
        if name.startswith("__") or not isinstance(value, _STATEFUL):
            continue
        raise ImportError(
            f"{name} is a {type(value).__name__}, which would carry something from one message to the next: "
            "keep state in stable collections, constants in tuples, frozensets and MappingProxyType"
        )


def _module_name(path: str) -> str:
    stem = path.removesuffix(".py").replace("/", ".")
    return stem.removesuffix(".__init__")


def _refusal(name: str, text: str) -> Callable[..., NoReturn]:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError(f"{name}() is not there: {text}")

    return refuse
