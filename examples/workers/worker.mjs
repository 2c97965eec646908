#!/usr/bin/env node
// A warrend worker in JavaScript: copy this file and fill in handle(). It needs nothing but Node.js.
//
//     [jobs.mails.handler]
//     worker = ["/opt/mails/worker.mjs"]
//     batch = 50
//
// warrend starts it, writes one JSON line with a batch of tasks to descriptor 3, and reads JSON lines with their results
// from descriptor 4. What you print goes to warrend's log and disturbs nothing.

import { writeSync } from "node:fs";
import { Socket } from "node:net";
import { createInterface } from "node:readline";

/** This message must never be tried again: it goes to the dead-letter queue. */
class Dead extends Error {}

/** Try it again, after this delay ("10s", "5m"); without one, after the delay that the job is configured with. */
class Retry extends Error {
  constructor(message, delay) {
    super(message);
    this.delay = delay;
  }
}

/**
 * Your work. To return means done; what is returned is the reply, where the job replies.
 *
 * `task` has key, attempt, max_attempts, queue, routing_key, headers and so on; `body` is a Buffer. A task can run again
 * after a crash; task.key is the same each time, so use it to do things once.
 */
async function handle(task, body) {
  const order = body[0] === 0x7b ? JSON.parse(body) : {};
  if (order.fail === "dead") throw new Dead("no such address");
  if (order.fail === "retry") throw new Retry("the mail server is busy", "10s");
}

async function resultOf(task) {
  try {
    const body = task.body !== undefined ? Buffer.from(task.body) : Buffer.from(task.body_base64, "base64");
    return { status: "done", reply: await handle(task, body) };
  } catch (error) {
    if (error instanceof Dead) return { status: "dead", error: error.message };
    // JSON leaves out what is undefined, such as the delay of any other error.
    return { status: "retry", error: String(error.message ?? error), delay: error.delay };
  }
}

/** Writes a whole line before anything else happens. */
function say(value) {
  let line = Buffer.from(JSON.stringify(value) + "\n");
  while (line.length > 0) line = line.subarray(writeSync(4, line));
}

let working = false;
let ending = false;
// warrend sends TERM when this process has to end. The batch at work is finished; then no other is begun.
process.on("SIGTERM", () => {
  ending = true;
  if (!working) process.exit(0);
});

say({ warrend: 1 });
// A socket and no file stream: a thread that waits in read() would keep process.exit() waiting, too.
const requests = new Socket({ fd: 3, readable: true, writable: false });
// The loop ends when warrend closes descriptor 3.
for await (const line of createInterface({ input: requests, crlfDelay: Infinity })) {
  working = true;
  const request = JSON.parse(line);
  // The tasks of a batch run side by side. Where they must not, await them one after the other, and answer each with
  // say({ id: request.id, results: [result], more: true }): if this process dies, the finished ones stay finished.
  say({ id: request.id, results: await Promise.all(request.tasks.map(resultOf)) });
  working = false;
  if (ending) break;
}
process.exit(0);
