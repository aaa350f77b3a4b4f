# Asks by gRPC what curl asked as JSON, for `cargo xtask door-check`.
"""Asks by gRPC, with code generated from the contracts, what curl asked as JSON: door_grpc.py STUBS CALLS ANSWERS

Each answer of curl is read by protobuf's own JSON into the message of its method, and compared with what gRPC answers. What is only
of the instant of an answer is left out; streams are compared part by part, those without an end as far as curl heard them.
"""

import importlib
import json
import pathlib
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory

STUBS, CALLS, ANSWERS = map(pathlib.Path, sys.argv[1:])
sys.path.insert(0, str(STUBS))
OF_THE_INSTANT = {"at", "complete_up_to", "final_up_to"}
# What lies ahead of an instant, and what metering holds at one, may be another one at the next.
UNSTABLE = {"ReportService_GetForecast", "UsageService_WatchLiveUsage", "UsageService_WatchLiveUsage_post"}


def load():
    # What takes CloudEvents refers to a package `io`, which is another one in Python; nothing is read by it.
    for path in set(STUBS.glob("drawdown/**/*_pb2.py")) - set(STUBS.glob("**/record_pb2.py")):
        importlib.import_module(".".join(path.relative_to(STUBS).with_suffix("").parts))


def stripped(message):
    for field, value in list(message.ListFields()):
        if field.name in OF_THE_INSTANT:
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE and not (field.message_type.GetOptions().map_entry):
            for inner in value if field.is_repeated else [value]:
                stripped(inner)
    return message


def answered(call, method):
    text = (ANSWERS / call["answer"]).read_text(encoding="utf-8")
    kind = message_factory.GetMessageClass(method.output_type)
    if not call["is_stream"]:
        return [json_format.Parse(text, kind())]
    # The last line may be cut where curl stopped listening.
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [json_format.ParseDict(line["result"], kind()) for line in lines]


def asked(call, method, channel, parts):
    request = json_format.ParseDict(call["request"], message_factory.GetMessageClass(method.input_type)())
    form = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }
    path = f"/{call['method']}"
    if not call["is_stream"]:
        return [channel.unary_unary(path, **form)(request, timeout=30)]
    stream = channel.unary_stream(path, **form)(request, timeout=30)
    if ":watch" not in call["path"]:
        return list(stream)
    heard = [next(stream) for _ in range(parts)]
    stream.cancel()
    return heard


def main():
    load()
    pool, channels = descriptor_pool.Default(), {}
    calls = json.loads(CALLS.read_text(encoding="utf-8"))
    for call in calls:
        method = pool.FindMethodByName(call["method"].replace("/", "."))
        channel = channels.setdefault(call["address"], grpc.insecure_channel(call["address"]))
        by_json = answered(call, method)
        if ":watch" in call["path"]:
            by_json = by_json[:1]
        by_grpc = asked(call, method, channel, len(by_json))
        if call["operation"] not in UNSTABLE:
            by_json, by_grpc = [list(map(stripped, parts)) for parts in (by_json, by_grpc)]
            assert by_json == by_grpc, f"{call['operation']}: by JSON {by_json}, by gRPC {by_grpc}"
    print(f"grpcio {grpc.__version__}: {len(calls)} reads are the same by gRPC and as JSON")


if __name__ == "__main__":
    main()
