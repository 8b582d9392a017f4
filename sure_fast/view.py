"""Shows predictions and their uncertainty in a browser: python -m sure_fast.view RUN_OR_FOLDER [--serve]

Of a run it predicts the cases that the run was evaluated on; of a folder that `predict` wrote, or nnU-Net's, it shows
what is there. The page is in RUN_OR_FOLDER/view: index.html opens from there without a server.
"""

from __future__ import annotations

import argparse
import functools
import http.server
from pathlib import Path

from .engine.cli import Parser

PROGRAM = "sure_fast.view"


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog=PROGRAM, description=str(__doc__).splitlines()[0])
    parser.add_argument("path", type=Path, metavar="RUN_OR_FOLDER", help="a run, or a folder of predictions")
    parser.add_argument("--images", type=Path, help="of a folder: its images (default: those it was predicted on)")
    parser.add_argument("--data", type=Path, help="of a folder: data folder with its images and labels, instead")
    parser.add_argument("--weights", choices=("last", "best"), help="of a run (default: those it was evaluated with)")
    parser.add_argument("--output", type=Path, help="folder of the page (default: RUN_OR_FOLDER/view)")
    parser.add_argument(
        "--serve", nargs="?", type=_port, const=0, metavar="PORT", help="serve it on this machine, until Ctrl-C"
    )
    parser.add_argument("--device", help="of a run: torch device (default: auto)")
    options = parser.parse_args(arguments)

    from .engine import cli, console, distributed, lock, viewing
    from .engine.resume import is_started

    distributed.refuse_ranks(PROGRAM)
    if not options.path.is_dir():
        raise ValueError(f"{options.path}: expected the folder of a run or of predictions, got "
                         f"{'a file' if options.path.exists() else 'nothing there'}")  # fmt: skip
    output = options.output or options.path / "view"
    if not (output / "cases.js").is_file():  # another page of ours is replaced
        cli.new_folder(output, hint="")
    is_run = is_started(options.path)
    for name in ("images", "data") if is_run else ("weights", "device"):
        if getattr(options, name) is not None:
            raise ValueError(f"{name}: expected with {'a folder of predictions' if is_run else 'a run'} only, got one")
    if options.images is not None and options.data is not None:
        raise ValueError("images: expected none with --data, which has them, got both")

    def report(line: str) -> None:
        console.say(f"{PROGRAM}: note: {line}", True)

    if is_run:
        device = distributed.choose_device(options.device or "auto")
        cases, names, shown = viewing.of_run(options.path, options.weights, device, report)
    else:
        cases, names, shown = viewing.of_predictions(options.path, options.images, options.data, report)
    with lock.held(output), console.bar(cases, "view", "case") as bar:
        size = viewing.write(output, options.path.resolve().name, names, map(shown, bar))
    print(
        f"{PROGRAM}: {len(cases)} cases, {size / 2**20:.1f} MiB; open {output / 'index.html'} in a browser", flush=True
    )
    if options.serve is not None:
        _serve(output, options.serve)


def _port(text: str) -> int:
    """0: one that is free."""
    port = int(text)
    if not 0 <= port < 2**16:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to {2**16 - 1}, got {port}")
    return port


def _serve(folder: Path, port: int) -> None:
    """On the loopback alone, until it is stopped."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Requests are not told."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=folder)) as server:
        print(f"{PROGRAM}: http://127.0.0.1:{server.server_address[1]}/ until Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"{PROGRAM}: stopped", flush=True)


if __name__ == "__main__":
    from .engine import cli

    cli.run(PROGRAM, main)
