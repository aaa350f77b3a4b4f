# The producer in Python of `cargo xtask wire-check`, which plays it against the real services.
"""A producer of usage, written from crates/metering/WIRE.md alone: producer.py STUBS ADDRESS PRODUCER_ID LOG EVENTS
appends the events of a file (JSON lines: client_id, meter, quantity, time_ms) to its log and sends that until it is settled."""

import base64, json, os, queue, random, sys, time  # noqa: E401
from collections import defaultdict, namedtuple

import grpc
from xxhash import xxh3_64_intdigest

STUBS, ADDRESS, PRODUCER, LOG, EVENTS = sys.argv[1:]
sys.path.insert(0, STUBS)
from drawdown.metering.v1 import ingest_pb2 as pb, ingest_pb2_grpc  # noqa: E402

BATCH_EVENTS = 200
PAUSES_S = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2] + [5] * 20
FINAL = {"FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED"}
PASSING = {"FRAME_DAMAGED", "LANE_OUT_OF_SEQUENCE", "LANE_UNKNOWN", "SERIES_UNKNOWN", "RECEIPT_IN_FUTURE", "DIVERGED"}
Frame = namedtuple("Frame", "last before after rows body")
Reconnect = type("Reconnect", (Exception,), {"__doc__": "Another stream may do better."})


def lane_of(message):
    return message.lane.map_version, message.lane.shard


class Log:
    """Records of JSON, one a line: an epoch, or frames with the number of events taken so far."""

    def __init__(self, path):
        self.epoch, self.taken, self.series = 0, 0, {}
        self.frames = defaultdict(list)  # lane → frames
        self.ends = defaultdict(lambda: {(0, 0): 0})  # lane → position → number of frames up to it
        self.file = open(path, "a+b")
        self.file.seek(0)
        whole = [line for line in self.file if line.endswith(b"\n")]  # a torn one was never sent
        self.file.truncate(sum(map(len, whole)))
        for line in whole:
            self.take(json.loads(line))

    def append(self, record):
        self.file.write(json.dumps(record).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.take(record)

    def take(self, record):
        self.epoch, self.taken = record.get("epoch", self.epoch), record.get("taken", self.taken)
        for rows, body in record.get("frames", []):
            body = base64.b64decode(body)
            frame = (pb.RowFrame if rows else pb.ColumnFrame).FromString(body)
            lane, (last, before) = lane_of(frame), self.end(lane_of(frame))
            last, after = last + (len(frame.rows) if rows else frame.event_count), xxh3_64_intdigest(body, before)
            self.series.update((new.series.SerializeToString(), new.number) for new in ([] if rows else frame.definitions))
            self.frames[lane].append(Frame(last, before, after, rows, body))
            self.ends[lane][last, after] = len(self.frames[lane])

    def end(self, lane):
        return (self.frames[lane][-1].last, self.frames[lane][-1].after) if self.frames[lane] else (0, 0)

    def check_settled(self, position):
        lane, at = lane_of(position), (position.sequence, position.chain)
        return (lane, at) if at in self.ends[lane] else sys.exit(f"DIVERGED: the ledger has {at} of lane {lane}")

    def fill(self, events, opened):
        lanes, known = defaultdict(list), dict(self.series)  # a frame for each lane, columns and rows in turn
        for event in events:
            shard = xxh3_64_intdigest(event["client_id"].encode()) % opened.shard_count
            lanes[opened.map_version, shard].append(event)
        for lane, events in lanes.items():
            rows, last_ms = len(self.frames[lane]) % 2 == 1, events[0]["time_ms"]
            frame = pb.RowFrame() if rows else pb.ColumnFrame(event_count=len(events), base_time_unix_ms=last_ms)
            frame.lane.map_version, frame.lane.shard = lane
            frame.first_sequence, frame.received_at_unix_ms = self.end(lane)[0] + 1, time.time_ns() // 1_000_000
            for event in events:
                series = pb.Series(client_id=event["client_id"], meter=event["meter"])
                quantity, time_ms, spelled = event["quantity"], event["time_ms"], series.SerializeToString()
                if rows:
                    frame.rows.add(series=series, quantity=quantity, time_unix_ms=time_ms)
                    continue
                if spelled not in known:
                    known[spelled] = len(known) + 1
                    frame.definitions.add(number=known[spelled], series=series)
                frame.series.append(known[spelled])
                frame.quantities.append(quantity)
                frame.time_deltas_ms.append(time_ms - last_ms)
                last_ms = time_ms
            yield rows, base64.b64encode(frame.SerializeToString()).decode()


def stream(stub, log):
    asks, sent, through, settled = queue.Queue(), {}, {}, {}
    ask = lambda **request: asks.put(pb.IngestRequest(**request))  # noqa: E731
    ask(hello=pb.Hello(producer_id=PRODUCER, epoch=log.epoch))
    numbers = [pb.SeriesDefinition(number=n, series=pb.Series.FromString(s)) for s, n in log.series.items()]
    ask(define=pb.DefineSeries(definitions=numbers))
    for lane in log.frames:
        ask(attach=pb.AttachLane(end_sequence=log.end(lane)[0], lane=pb.Lane(map_version=lane[0], shard=lane[1])))
    for answer in stub.Ingest(iter(asks.get, None)):
        kind = answer.WhichOneof("response")
        part = getattr(answer, kind)
        if kind == "stopped":
            raise Reconnect(part.reason) if part.reason in PASSING else SystemExit(f"{part.reason}: {part.detail}")
        kind == "refused" and print("refused", part.reason, part.count, flush=True)
        for mark in {"watermarks": getattr(part, "lanes", []), "refused": []}.get(kind, [part]):
            lane, applied = lane_of(mark.applied), (mark.applied.sequence, mark.applied.chain)
            kind == "attached" and mark.registered_epoch > log.epoch and sys.exit("FENCED")
            if kind != "rewound":
                through[lane] = mark.send_through_sequence
                settled.update([log.check_settled(mark.settled)] if mark.HasField("settled") else [])
            if kind != "watermarks":
                if applied not in log.ends[lane]:
                    raise Reconnect(f"the log has no {applied}")
                sent[lane] = log.ends[lane][applied]
                print(kind, *lane, applied[0], "of", log.end(lane)[0], flush=True)
            for frame in log.frames[lane][sent[lane] :]:
                chains = {"chain_before": frame.before, "chain_after": frame.after}
                if frame.last <= through[lane] and frame.rows:
                    ask(rows=pb.LaneRows(frame=pb.RowFrame.FromString(frame.body), **chains))
                elif frame.last <= through[lane]:
                    ask(frame=pb.LaneFrame(body=frame.body, **chains))
                sent[lane] += frame.last <= through[lane]
        if all(settled.get(lane) == log.end(lane) for lane in log.frames):
            return asks.put(None)
    raise Reconnect("the stream ended")


def attempt(act):
    """Until it succeeds, or never can."""
    for pause_s in PAUSES_S:
        try:
            return act()
        except (grpc.RpcError, Reconnect) as error:
            if isinstance(error, grpc.RpcError) and error.code().name in FINAL:
                sys.exit(str(error))
            print("again:", str(error).splitlines()[0], flush=True)
        time.sleep(pause_s * random.uniform(0.5, 1))
    sys.exit("given up")


log, stub = Log(LOG), ingest_pb2_grpc.IngestServiceStub(grpc.insecure_channel(ADDRESS))
opened = attempt(lambda: stub.OpenProducer(pb.OpenProducerRequest(producer_id=PRODUCER, log_epoch=log.epoch)))
log.append({"epoch": opened.epoch})
list(map(log.check_settled, opened.settled))
events = [json.loads(line) for line in open(EVENTS, encoding="utf-8")]
for at in range(log.taken, len(events), BATCH_EVENTS):
    frames = list(log.fill(events[at : at + BATCH_EVENTS], opened))
    log.append({"frames": frames, "taken": min(at + BATCH_EVENTS, len(events))})
attempt(lambda: stream(stub, log))
print("settled", log.taken, flush=True)
