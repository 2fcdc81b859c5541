"""Event files: one run of TensorBoard, written at once and in order, and the protocol buffers of its HParams tab."""

from __future__ import annotations

import functools
import io
import itertools
import os
import re
import tempfile
import time
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from pyarrow import csv
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboardX import embedding, summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

#: Event files of one process must differ in name even within a second.
_NUMBER = itertools.count()


def tag_name(text: str) -> str:
    """Text from data as one part of a tag or of a run's name."""
    return re.sub(r"[^\w.+-]+", "_", text)


class Run:
    """One run: a folder with one event file.

    tensorboardX's own writer queues through a thread and a pipe for each run; a study has hundreds of small ones.
    """

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        """Begin an event file; a dashboard that is open forgets what it knew of this run from `first_step` on."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = EventsWriter(str(folder / "events"), filename_suffix=f".{os.getpid()}.{next(_NUMBER):05d}")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._file.write_event(event_pb2.Event(wall_time=time.time(), step=first_step, session_log=start))

    def add(self, content: Any, step: int = 0, wall_time: float | None = None) -> None:
        """Add a summary of any kind."""
        self._file.write_event(event_pb2.Event(summary=content, step=step, wall_time=wall_time or time.time()))

    def scalar(self, tag: str, value: float, step: int = 0, wall_time: float | None = None) -> None:
        self.add(summary.scalar(tag, value), step, wall_time)

    def text(self, tag: str, markdown: str) -> None:
        self.add(summary.text(tag, markdown))

    def picture(self, tag: str, pixels_HWC: NDArray[np.uint8]) -> None:
        self.add(summary.image(tag, pixels_HWC, dataformats="HWC"))

    def figure(self, tag: str, figure: Figure) -> None:
        """Add a drawn figure as a picture."""
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
        width, height = Image.open(content).size
        image = summary_pb2.Summary.Image(
            encoded_image_string=content.getvalue(), width=width, height=height, colorspace=4
        )
        self.add(summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, image=image)]))

    def projector(self, name: str, vectors_ND: NDArray[Any], labels: list[str], images_NHWC: NDArray[np.uint8]) -> None:
        """Add vectors with labels and sprites; the projector reads files beside the events."""
        folder = self._folder / "projector" / name
        folder.mkdir(parents=True)
        embedding.make_tsv(labels, str(folder))
        (folder / "sprite.png").write_bytes(_sprite(images_NHWC.tobytes(), images_NHWC.shape))
        columns = pa.table(list(vectors_ND.T.astype(np.float32)), names=[str(n) for n in range(vectors_ND.shape[1])])
        options = csv.WriteOptions(include_header=False, delimiter="\t")
        csv.write_csv(columns, folder / "tensors.tsv", options)
        embedding.append_pbtxt(
            labels, images_NHWC.transpose(0, 3, 1, 2), str(self._folder), f"projector/{name}", 0, name
        )

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@functools.lru_cache(maxsize=8)
def _sprite(pixels: bytes, shape: tuple[int, ...]) -> bytes:
    """Images (N, H, W, C) as one picture, in PNG; the same stand behind the vectors of every encoder."""
    images_NHWC = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        embedding.make_sprite(np.repeat(images_NHWC, 3 // shape[3], axis=3).transpose(0, 3, 1, 2) / 255, folder)
        return Path(folder, "sprite.png").read_bytes()


# --- HParams -----------------------------------------------------------------------------------------------------

Value = bool | float | str


def experiment(rows: list[dict[str, Value]], metrics: list[str], searched: Container[str]) -> Any:
    """What names all columns of the HParams tab, for any run of a study; TensorBoard takes it from one place only.

    Args:
        rows: what was, or will be, set for each trial.
        searched: names whose values are not known beforehand: TensorBoard hides what its list of values lacks.
    """
    kinds = {bool: "DATA_TYPE_BOOL", str: "DATA_TYPE_STRING"}
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: list(dict.fromkeys(row[name] for row in rows if name in row)) for name in names}
    infos = []
    for name, values in columns.items():
        kind = api_pb2.DataType.Value(kinds.get(type(values[0]), "DATA_TYPE_FLOAT64"))
        varies = len(values) > 1 or name in searched
        info = api_pb2.HParamInfo(name=name, type=kind, differs=varies)  # what differs is shown first
        info.domain_discrete.extend([] if name in searched else values)
        infos.append(info)
    named = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=metric)) for metric in metrics]
    return _hparams("experiment", experiment=api_pb2.Experiment(hparam_infos=infos, metric_infos=named))


def session_start(values: dict[str, Value], when: float | None = None) -> Any:
    """One row of the tab, from the first epoch on."""
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=when or time.time())
    for name, value in values.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    return _hparams("session_start_info", session_start_info=start)


def session_end(*, failed: bool, when: float | None = None) -> Any:
    """How the row ended; without it, it is shown as running."""
    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=when or time.time())
    return _hparams("session_end_info", session_end_info=end)


def _hparams(tag: str, **content: Any) -> Any:
    data = plugin_data_pb2.HParamsPluginData(version=0, **content).SerializeToString()
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=f"_hparams_/{tag}", metadata=metadata)])
