"""A folder of contents, or the frames of a film in order."""

from __future__ import annotations

import time
from dataclasses import asdict, fields, replace
from pathlib import Path

from kzoo.data.images import shown
from kzoo.errors import DataError, KzooError
from kzoo.files import make_folder
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import say
from kzoo.style.transfer import Settings, beside, settled, stylize
from kzoo.synthesis import pictures


def stylize_folder(contents, styles, out, *, from_last=False, budget=None, resume=False, quiet=False, **options):
    """Paint every picture of a folder; frame2.jpg comes before frame10.jpg.

    out: a folder, made if need be; contents/a.jpg becomes out/a.png. from_last: start each from the result before it,
        at full size, so that frames hang together. budget: seconds for all of them, shared out equally.
    resume: pass over those that are finished. Others as in `kzoo.stylize`.

    Returns a list of Results, without picture and history, which are in the files. A picture that can't be painted is
    named and the others painted; DataError at the end says how many there were, and has the Results as `results`.
    """
    files, out = pictures.listed(contents), Path(out)
    targets, taken = {}, set()
    for file in files:
        target = out / f"{file.stem}.png"
        theirs = {target, beside(target, "compare"), beside(target, "loss")}
        if taken & theirs:
            raise KzooError(f"Two pictures of {shown(contents)} would both become {shown(target)}: rename one.")
        taken |= theirs
        if target.resolve() == file.resolve():
            raise KzooError(f"{shown(file)} would be overwritten by its result: give another folder.")
        targets[file] = target
    changes = {f.name: options.pop(f.name) for f in fields(Settings) if f.name in options}
    before = options.pop("settings", None) or Settings()
    options["settings"] = settled(Settings.of({**asdict(before), **changes}), quiet)  # once, not for each picture
    deadline = budget and time.monotonic() + budget  # a download is no part of it
    make_folder(out)
    results, bad, last, eyes = [], [], None, {}
    with interruptible("the pictures so far are kept, and --resume goes on from there") as interrupted:
        for i, (file, target) in enumerate(targets.items()):
            if interrupted():
                raise Interrupted("")
            state = target.with_suffix(".state").is_file()
            if resume and target.is_file() and not state:
                last = target
                continue
            changes = dict(options)
            if from_last and last is not None:
                changes.update(init=str(last), coarsest=0)
                if isinstance(options["settings"].evaluations, tuple):  # those of several sizes
                    changes["evaluations"] = sum(options["settings"].evaluations)
            if deadline:
                changes["budget"] = max(0.1, (deadline - time.monotonic()) / (len(files) - i))
            try:
                result = stylize(file, styles, out=target, resume=resume and state, quiet=quiet, eyes=eyes, **changes)
                results.append(replace(result, picture=None, history=[]))  # a film would fill the memory
                last = target
            except DataError as e:
                bad.append(file)
                say(str(e))
    if bad:
        raise pictures.unpainted(bad, files, results)
    return results
