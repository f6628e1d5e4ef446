"""The rows to train on, as TRL takes them: a memory-mapped dataset in the order of `rows.order`, and pairs collated."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from davir_ray import storage
from davir_ray.ids import keys_of
from davir_ray.schema import IGNORED
from davir_ray.train.rows import TRAINING, order


def fetch_rows(folder: str, file: Path) -> None:
    """Write the rows of a folder into one Arrow file of this machine, part by part."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, TRAINING) as writer:
        for uri in storage.list_files(folder, ".parquet"):
            writer.write_table(storage.read_table(uri))


def open_rows(file: Path) -> Dataset:
    """Open the rows of an Arrow file in training order, each once; columns without values are left out."""
    dataset = Dataset.from_file(str(file))
    table = dataset.data.table
    index = order(keys_of(table["example_id"]), table["rank"].to_numpy())
    empty = [name for name in TRAINING.names if table[name].null_count == len(table)]
    return dataset.remove_columns(["example_id", "rank", *empty]).select(index)


class PairCollator:
    """Puts pairs into one batch as TRL's DPO expects it, with our marks of what counts.

    Takes rows of TRAINING. Returns `input_ids`, `attention_mask` and `completion_mask` [2B, T], the chosen sides first,
    and where rows have them `ref_chosen_logps` and `ref_rejected_logps` [B].
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest sequence."""
        ids = [row["input_ids"] for row in rows] + [row["rejected_input_ids"] for row in rows]
        labels = [row["labels"] for row in rows] + [row["rejected_labels"] for row in rows]
        batch = {
            "input_ids": _padded(ids, self.pad_token_id),
            "attention_mask": _padded([[1] * len(one) for one in ids], 0),
            "completion_mask": (_padded(labels, IGNORED) != IGNORED).long(),
        }
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.float32)
        return batch


def _padded(lists: list[list[int]], value: int) -> torch.Tensor:
    return pad_sequence([torch.tensor(one) for one in lists], batch_first=True, padding_value=value)
