"""What users ask for at the page, done one after another."""

from __future__ import annotations

import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Turns"]

_FORESEEN = (ValueError, KeyError, IndexError, OSError, TypeError)


class Turns:
    """A thread that does what is asked for in the order of asking, and says what went wrong with `say`, or
    that nothing did, with an empty text.

    Of a control that is moved on before its turn comes only the last value counts.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._waiting: OrderedDict[object, tuple[Callable[[], object], threading.Event]] = OrderedDict()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="neuralannot view", daemon=True)
        self._thread.start()

    def ask(self, act: Callable[[], object], control: str | None = None) -> threading.Event:
        """Ask for it, in place of what was asked for by the same control and has not begun; None is none.

        The event is set when it was done, or will not be.
        """
        done = threading.Event()
        key = object() if control is None else control
        with self._changed:
            if self._stopped:
                done.set()
                return done
            before = self._waiting.pop(key, None)
            if before is not None:
                before[1].set()
            self._waiting[key] = act, done
            self._changed.notify()
        return done

    def awaits(self, control: str) -> bool:
        """Whether what a control asks for has not begun."""
        with self._changed:
            return control in self._waiting

    def stop(self) -> None:
        """Do nothing more but what has begun."""
        with self._changed:
            self._stopped = True
            for _, done in self._waiting.values():
                done.set()
            self._waiting.clear()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                _, (act, done) = self._waiting.popitem(last=False)
            said = ""
            try:
                act()
            except _FORESEEN as error:
                said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
            except Exception as error:
                if not self._stopped:
                    traceback.print_exc()  # for whoever started it; the page goes on
                said = f"{type(error).__name__}: {error}"
            try:
                if not self._stopped:
                    self._say(said)
            finally:
                done.set()
