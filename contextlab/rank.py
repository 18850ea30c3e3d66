"""The process of one rank: ``python -m contextlab.rank``, by ``ring.launch``.

It reads ``<rank>.given`` and ``function.py``, says in ``<rank>.at`` where it
is, and leaves ``<rank>.done`` or ``<rank>.error``.
"""

import importlib.util
import os
import sys
import threading
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from contextlab.ring import Exchange
from contextlab.spies import Watch, asleep


class GlooExchange(Exchange):
    """An exchange between processes.

    Args:
        rank: whose it is.
        world: the number of ranks.
        at: the file that says where this rank is.
    """

    def __init__(self, rank: int, world: int, at: Path) -> None:
        super().__init__(rank)
        self.next, self.previous = (rank + 1) % world, (rank - 1) % world
        self.at = at

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Send, and return what the previous rank has sent."""
        self.count(tensors)
        if self.next == self.rank:  # alone
            return tuple(x.clone() for x in tensors)
        self.say(f"waits in exchange {self.sends} for rank {self.previous}")
        sent = [x.detach().contiguous() for x in tensors]
        received = [torch.empty_like(x) for x in sent]
        with asleep():
            transfers = [
                *(dist.P2POp(dist.isend, x, self.next) for x in sent),
                *(dist.P2POp(dist.irecv, x, self.previous) for x in received),
            ]
            for work in dist.batch_isend_irecv(transfers):
                work.wait()
        self.say(f"computes, after exchange {self.sends}")
        return tuple(received)

    def say(self, what: str) -> None:
        """Leave word of where this rank is."""
        self.at.write_text(what, encoding="utf-8")


def end_with_parent() -> None:
    """End this process when the one that started it is gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def describe(error: BaseException, path: Path) -> str:
    """Say what went wrong, and where in the function that was sent."""
    said = "".join(traceback.format_exception_only(error)).strip()
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == path:
            said += f"\n  in {frame.name}: {frame.line}"
    return said


def main(folder: Path, name: str, rank: int, world: int) -> None:
    """Be a rank from start to end."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    path = folder / "function.py"
    spec = importlib.util.spec_from_file_location("function", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name)
    block = torch.load(folder / f"{rank}.given", weights_only=True)
    exchange = GlooExchange(rank, world, folder / f"{rank}.at")
    exchange.say("computes, before any exchange")
    with Watch() as seen:
        result = function(**block, exchange=exchange, world=world)
    done = {
        "result": result,
        "sends": exchange.sends,
        "sent_bytes": exchange.sent_bytes,
        "peak_bytes": seen.held,
    }
    exchange.say(f"is done, after {exchange.sends} exchanges")
    dist.barrier()  # nobody leaves while another still receives
    part = folder / f"{rank}.part"
    torch.save(done, part)
    part.rename(folder / f"{rank}.done")
    dist.destroy_process_group()


if __name__ == "__main__":
    place, called, number, size = sys.argv[1:]
    try:
        main(Path(place), called, int(number), int(size))
    except BaseException as error:
        said = describe(error, Path(place) / "function.py")
        (Path(place) / f"{number}.error").write_text(said, encoding="utf-8")
        sys.stdout.flush()
        os._exit(1)  # at once: a broken ring can't be closed in order
