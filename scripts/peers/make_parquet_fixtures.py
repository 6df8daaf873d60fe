"""Writes Tests/Fixtures/parquet with pyarrow, pandas and datasets: small Parquet files as verl's preprocessing scripts write
them, and one of every type, each with the JSON Lines that its rows are.

    pip install pyarrow pandas datasets
    python scripts/peers/make_parquet_fixtures.py
"""

import datetime
import decimal
import json
import os

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "Tests", "Fixtures", "parquet")


def gsm8k(index):
    question = f"Ana has {index + 3} apples and buys {index * 2}. How many has she?\n\tSay \"n\" – naïve, 数, 🍎."
    return {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": question + ' Let\'s think step by step and output the final answer after "####".'}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(index * 3 + 3)},
        "extra_info": {"split": "train", "index": index, "answer": f"#### {index * 3 + 3}", "question": question},
    }


def dapo(index):
    row = {
        "data_source": "math_dapo" if index % 3 else "numina",
        "prompt": [{"role": "system", "content": "Solve."}, {"role": "user", "content": f"What is {index}²?"}],
        "ability": None if index % 4 == 0 else "MATH",
        "reward_model": {"ground_truth": str(index * index), "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": f"id-{index}"} if index % 2 else {"index": f"id-{index}", "level": [1, index]},
        "source_prompt": f"unused {index}",
    }
    return row


def all_types():
    utc = datetime.timezone.utc
    moment = datetime.datetime(2024, 2, 29, 12, 34, 56, 789000)
    before = datetime.datetime(1969, 12, 31, 23, 59, 59)
    columns = {
        "int8": pa.array([-128, None, 127], pa.int8()),
        "uint16": pa.array([0, 65535, 7], pa.uint16()),
        "int32": pa.array([None, None, -5], pa.int32()),
        "int64": pa.array([-(2**63), 2**63 - 1, 0], pa.int64()),
        "uint64": pa.array([2**64 - 1, 0, 1], pa.uint64()),
        "float16": pa.array([1.5, None, -0.25], pa.float16()),
        "float32": pa.array([0.1, float("nan"), -2.5], pa.float32()),
        "float64": pa.array([0.1, 1e300, None], pa.float64()),
        "bool": pa.array([True, False, None]),
        "null": pa.nulls(3),
        "text": pa.array(["", None, 'quote " slash \\ line\nnul\x01 é 数 🍎'], pa.string()),
        "large_text": pa.array(["a", "bb", None], pa.large_string()),
        "word": pa.array(["red", None, "red"]).dictionary_encode(),
        "list": pa.array([[1, None, 3], [], None], pa.list_(pa.int64())),
        "large_list": pa.array([["x"], None, ["y", "z"]], pa.large_list(pa.string())),
        "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
        "lists": pa.array([[[1], []], [None], []], pa.list_(pa.list_(pa.int8()))),
        "object": pa.array([{"a": 1, "b": {"c": "x"}}, {"a": None, "b": None}, None]),
        "map": pa.array([[("k", 1), ("l", None)], [], None], pa.map_(pa.string(), pa.int32())),
        "objects": pa.array([[{"role": "user"}], [], [{"role": "a"}, {"role": None}]]),
        "decimal": pa.array([decimal.Decimal("-0.05"), None, decimal.Decimal("12345.60")], pa.decimal128(12, 2)),
        "date": pa.array([datetime.date(2000, 1, 1), datetime.date(1969, 12, 31), None], pa.date32()),
        "seconds": pa.array([moment.replace(microsecond=0), before, None], pa.timestamp("s")),
        "micros": pa.array([moment, before, None], pa.timestamp("us")),
        "zoned": pa.array([moment.replace(tzinfo=utc), None, before.replace(tzinfo=utc)], pa.timestamp("ms", tz="Asia/Tokyo")),
    }
    return pa.table(columns)


def plain(value):
    """A value as Fledge writes it, by rules of its own: pyarrow's Python values, with dates as ISO text."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo:
            # The fixture has it in milliseconds.
            spec = "milliseconds" if value.microsecond else "auto"
            text = value.astimezone(datetime.timezone.utc).replace(tzinfo=None).isoformat(timespec=spec) + "Z"
        else:
            text = value.isoformat()
        return text
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return Number(f"{value:f}")
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return {key: plain(item) for key, item in value}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


class Number(float):
    """A number that keeps its digits."""

    def __new__(cls, text):
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __repr__(self):
        return self.text


def main():
    os.makedirs(FOLDER, exist_ok=True)
    datasets.Dataset.from_list([gsm8k(index) for index in range(24)]).to_parquet(path("gsm8k"))
    pandas.DataFrame([dapo(index) for index in range(40)]).to_parquet(path("dapo"), row_group_size=7, compression="zstd")
    table = all_types()
    pq.write_table(table, path("types"), compression="gzip")
    for name in ["gsm8k", "dapo", "types"]:
        rows = pq.read_table(path(name)).to_pylist()
        with open(path(name)[: -len("parquet")] + "jsonl", "w") as file:
            for row in rows:
                row = plain(row)
                for column in ["map"]:
                    if row.get(column) == []:
                        row[column] = {}
                if "float32" in row and row["float32"] is not None:
                    row["float32"] = Number(f"{row['float32']:.7g}")
                file.write(encode(row) + "\n")
    pq.write_table(pa.table({"prompt": ["p"], "image": pa.array([b"\x00"], pa.binary())}), path("binary"))
    pq.write_table(pa.table({"prompt": ["p", "q"], "extra_info": [{"x": 1.0}, {"x": float("inf")}]}), path("infinite"))


def encode(value):
    """JSON without spaces, in which a Number keeps its digits."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(json.dumps(key, ensure_ascii=False) + ":" + encode(item) for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def path(name):
    return os.path.join(FOLDER, name + ".parquet")


main()
