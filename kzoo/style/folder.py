"""Style transfer for the pictures of a folder, or the frames of a film in order."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kzoo.data.images import shown
from kzoo.errors import DataError, KzooError
from kzoo.files import make_folder
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import say
from kzoo.runs import differences
from kzoo.style.settings import Settings
from kzoo.style.transfer import Picture, Result, beside, refuse_to_replace, stylize, with_weights
from kzoo.synthesis import pictures


def stylize_folder(
    contents: str | os.PathLike,
    styles: Picture | Sequence[Picture],
    out: str | os.PathLike,
    *,
    settings: Settings | None = None,
    from_last: bool = False,
    budget: float | None = None,
    save_every: int | None = None,
    resume: bool = False,
    force: bool = False,
    report: bool = False,
    quiet: bool = False,
    **changes: Any,
) -> list[Result]:
    """Paint every picture of a folder; frame2.jpg comes before frame10.jpg.

    Args:
        contents: the folder with the content pictures.
        styles: one style or a list, each a path or an array (H, W, 3) uint8.
        out: a folder, made if need be; contents/a.jpg becomes out/a.png.
        settings: a `Settings` in place of the defaults.
        from_last: begin each picture with the result before it, at full size, so that frames resemble each other. The
            first gets at each of its sizes the evaluations that the others have, and so is painted as strongly.
        budget: seconds for all pictures, divided equally between them.
        save_every, quiet: as in `kzoo.stylize`.
        force: replace pictures that are there.
        report: write the comparison and the loss curve of each picture as well.
        resume: leave out the pictures that are finished, and continue the one that was interrupted.
        **changes: fields of `Settings`, which take precedence over `settings`.

    Returns:
        A Result for each picture that was painted, without picture and history, which are in the files.

    Raises:
        DataError: some pictures can't be painted. Each is named and the others are painted first; the error says how
            many there were, and has the Results of the others as `results`.
        KzooError: two pictures would have one result, a result would overwrite a picture, or what is finished was
            painted with other settings.
        Interrupted: after Ctrl-C.
    """
    files, out = pictures.picture_files(contents), Path(out)
    targets, taken, sources = {}, set(), {f.resolve() for f in files}
    for file in files:
        target = out / f"{file.stem}.png"
        theirs = {target, beside(target, "compare"), beside(target, "loss")}
        if taken & theirs:
            raise KzooError(f"Two pictures of {shown(contents)} would both become {shown(target)}: rename one.")
        taken |= theirs
        if target.resolve() in sources:
            raise KzooError(f"{shown(target)} is a picture to paint, and would be overwritten: give another --out.")
        targets[file] = target
        if not (resume or force):
            refuse_to_replace(target, report)
    settings = Settings.of({**asdict(settings or Settings()), **changes})
    settings = with_weights(settings, quiet)  # once, not for each picture
    if resume:
        for target in targets.values():
            if target.is_file() and not target.with_suffix(".state").is_file():
                check_finished(target, styles, settings)
    beginning = following = settings
    if from_last:
        counts = settings.evaluations
        # There is one size from the second picture on: it gets the evaluations of all sizes.
        following = replace(settings, coarsest=0, evaluations=sum(counts) if isinstance(counts, tuple) else counts)
        beginning = as_strong(settings, files[0])
    deadline = budget and time.monotonic() + budget  # a download is not part of it
    make_folder(out)
    results, bad, last, networks = [], [], None, {}
    with interruptible("the pictures so far are kept, and --resume continues from there") as interrupted:
        for i, (file, target) in enumerate(targets.items()):
            if interrupted():
                raise Interrupted("")
            state = target.with_suffix(".state").is_file()
            if resume and target.is_file() and not state:
                last = target
                continue
            try:
                result = stylize(
                    file,
                    styles,
                    out=target,
                    settings=replace(following, init=str(last)) if from_last and last is not None else beginning,
                    budget=max(0.1, (deadline - time.monotonic()) / (len(files) - i)) if deadline else None,
                    save_every=save_every,
                    resume=resume and state,
                    force=True,  # what may not be replaced was refused above
                    report=report,
                    quiet=quiet,
                    networks=networks,
                )
                results.append(replace(result, picture=None, history=[]))  # those of a film would fill the memory
                last = target
            except DataError as e:
                bad.append(file)
                say(str(e))
    if bad:
        raise pictures.failed_pictures(bad, files, results)
    return results


def check_finished(target: Path, styles: Picture | Sequence[Picture], settings: Settings) -> None:
    """Raise a KzooError if a picture that is there was not painted with these styles and settings.

    Evaluations, and what a picture began with, may differ: a budget gives other ones, and a film may have grown.

    Args:
        target: the picture.
        styles: those of the folder; of a file its name counts.
        settings: those of the folder.
    """
    try:
        found = pictures.read_record(target)
    except DataError as e:
        raise KzooError(
            f"--resume leaves out what is finished, but {e} Move it away, or start again with --force."
        ) from e

    def names(given):
        return [os.path.basename(s) for s in given if isinstance(s, (str, os.PathLike))]

    several = styles if isinstance(styles, (list, tuple)) else [styles]
    ours = {**asdict(settings), "styles": names(several)}
    theirs = {**found["settings"], "styles": names(found.get("styles") or ())}
    wrong = differences(ours, theirs, sorted(ours.keys() & theirs.keys() - {"evaluations", "init", "coarsest"}))
    if wrong:
        raise KzooError(
            f"{shown(target)} was painted otherwise, and --resume would keep it: {'; '.join(wrong)}. Give the same "
            "styles and settings, or another --out."
        )


def as_strong(settings: Settings, first: Path) -> Settings:
    """The settings of a film's first picture, so that it is painted as strongly as those that begin with one before.

    Args:
        settings: those of the film. Evaluations of each size are kept.
        first: the file of the picture; if it can't be read, the settings stay, and painting it says why.
    """
    if isinstance(settings.evaluations, tuple):
        return settings
    try:
        sides = settings.sides(pictures.read_picture(first).shape)
    except DataError:
        return settings
    return replace(settings, evaluations=settings.evaluations * len(sides))
