"""Run the scale labs: ``python -m contextlab.scale [LAB...] [--save]``."""

import argparse
from collections.abc import Callable
from functools import partial
from importlib import import_module

from contextlab import scale
from contextlab.scale import device


def main() -> None:
    """Measure what is asked for, print it, and keep it if that is wanted."""
    parser = argparse.ArgumentParser(
        prog="python -m contextlab.scale", description=__doc__
    )
    parser.add_argument("labs", nargs="*", metavar="LAB", help="all if none")
    parser.add_argument(
        "--save", action="store_true", help=f"write to {scale.DATA}"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.labs) - set(scale.LABS):
        parser.error(
            f"there is no lab {', '.join(sorted(unknown))}; there are "
            f"{', '.join(scale.LABS)}"
        )
    for lab in chosen.labs or scale.LABS:
        if device.HAS_GPU and not scale.can_measure(lab):
            print(f"{lab} needs more GPUs than there are", flush=True)
            continue
        print(f"{lab} on {device.name()}", flush=True)
        keep = partial(scale.write, lab) if chosen.save else id
        scale.measure(lab, *references(lab), keep=keep)
        if chosen.save:
            print(f"written to {scale.DATA}", flush=True)


def references(lab: str) -> list[Callable]:
    """Return the reference answers to the exercises that a lab measures."""
    names = import_module(f"contextlab.scale.{lab}").FUNCTIONS
    return [
        getattr(import_module(f"solutions.{chapter}"), name)
        for chapter, name in (dotted.split(".") for dotted in names)
    ]


if __name__ == "__main__":
    main()
