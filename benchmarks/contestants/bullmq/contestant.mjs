/**
 * BullMQ on Node: concurrency 100, finished jobs removed, no metrics, `drainDelay` at its default (5 s, blocking).
 *
 * Its processors are async functions only. In the recovery measure locks last 2 s and stalled jobs are looked for
 * every second.
 */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { writeSync } from "node:fs";

const [nodeModules, text] = process.argv.slice(2);
const { Queue, Worker } = createRequire(pathToFileURL(`${nodeModules}/`))("bullmq");
const order = { count: 0, seconds: 0, gap_ms: 0, kind: "job", slots: 0, ...JSON.parse(text) };
const connection = { host: "127.0.0.1", port: Number(new URL(order.url).port), maxRetriesPerRequest: null };
const BATCH_SIZE = 1000;

const say = (event, figures = {}) => writeSync(1, `${JSON.stringify({ event, ...figures })}\n`);
const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6; // CLOCK_MONOTONIC, as Python's time.monotonic_ns
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function payload(number) {
  if (order.kind === "job") return { n: number };
  return { n: number, kind: order.kind, sent_ms: monotonicMs() };
}

function work() {
  const delays = [];
  let serial = 0;
  let first = 0;
  const processor = async ({ data }) => {
    if (data.kind === undefined) {
      serial += 1;
      if (serial === 1) {
        first = monotonicMs();
        say("first");
      }
      if (serial === order.count) say("done", { seconds: (monotonicMs() - first) / 1000, jobs: serial });
    } else if (data.kind === "timed") {
      delays.push(monotonicMs() - data.sent_ms);
      if (delays.length === order.count) {
        delays.sort((a, b) => a - b);
        say("done", { p50: delays[delays.length >> 1], p99: delays[Math.floor(delays.length * 0.99)] });
      }
    } else if (data.kind === "jitter") {
      serial += 1;
      if (serial % 10 === 0) say("some", { jobs: serial });
      await pause(5 + 30 * ((data.n * 0.6180339887) % 1)); // as in protocol.py
    } else if (data.kind === "warm") {
      say("warm");
    } else {
      say("held", { at: monotonicMs() / 1000 });
      await pause(600_000);
    }
  };
  const takeover = order.kind === "hold" ? { lockDuration: 2000, stalledInterval: 1000 } : {};
  new Worker("bench", processor, {
    connection, concurrency: order.slots || 100, removeOnComplete: { count: 0 }, removeOnFail: { count: 0 }, ...takeover,
  });
}

async function send() {
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  const options = { removeOnComplete: true, removeOnFail: true };
  const start = monotonicMs();
  const more = (jobs) => (order.seconds ? monotonicMs() - start < order.seconds * 1000 : jobs < order.count);
  let jobs = 0;
  while (more(jobs)) {
    if (order.role === "batch") {
      const size = order.seconds ? BATCH_SIZE : Math.min(BATCH_SIZE, order.count - jobs);
      const batch = Array.from({ length: size }, (_, n) => ({ name: "noop", data: payload(jobs + n), opts: options }));
      await queue.addBulk(batch);
      jobs += size;
    } else {
      if (order.gap_ms) await pause(Math.max(0, start + jobs * order.gap_ms - monotonicMs()));
      await queue.add("noop", payload(jobs), options);
      jobs += 1;
    }
  }
  say("sent", { seconds: (monotonicMs() - start) / 1000, jobs });
  await queue.close();
}

await (order.role === "work" ? work() : send());
