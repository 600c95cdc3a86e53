"use strict";
// Reads /status.json every second and draws it. Text goes in as text: names come from outside.
const SQUARES = 200;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

function fill(id, rows, empty) {
  const body = document.querySelector(`#${id} tbody`);
  body.replaceChildren();
  for (const cells of rows) {
    const row = element("tr");
    for (const [text, className] of cells) row.append(element("td", className, text));
    body.append(row);
  }
  if (!rows.length) {
    const cell = element("td", "none", empty);
    cell.colSpan = document.querySelectorAll(`#${id} th`).length;
    const row = element("tr");
    row.append(cell);
    body.append(row);
  }
}

function drawMap(blocks) {
  const map = element("div", "map");
  const part = (count) => Math.round((SQUARES * count) / Math.max(1, blocks.total));
  const used = part(blocks.used);
  const promised = Math.max(used, part(blocks.reserved));
  const sent = Math.min(SQUARES, promised + part(blocks.unseen));
  map.setAttribute("role", "img");
  map.setAttribute("aria-label", `${blocks.used} of ${blocks.total} blocks in use, ${blocks.reserved} promised`);
  for (let at = 0; at < SQUARES; at += 1) {
    map.append(element("i", at < used ? "used" : at < promised ? "reserved" : at < sent ? "unseen" : "free"));
  }
  return map;
}

function drawWorker(worker) {
  const card = element("article", "worker");
  const head = element("h3", "", worker.address);
  head.append(element("span", `tag ${worker.state === "serving" ? "good" : "bad"}`, worker.state));
  const blocks = worker.blocks;
  const taken = Math.max(blocks.used, blocks.reserved);
  const broken = Object.entries(worker.breakers).filter(([, state]) => state !== "closed");
  card.append(head, drawMap(blocks));
  card.append(element("p", "", `${worker.model}: ${taken.toLocaleString("en")} of ${blocks.total.toLocaleString("en")} blocks ` +
    `in use or promised (${Math.round((100 * taken) / Math.max(1, blocks.total))} %)`));
  card.append(element("p", "", `${worker.running} running, ${worker.in_flight} from here; ` +
    `${worker.decode_tokens_per_s.toLocaleString("en")} tokens/s; ${worker.pending_prefill_tokens.toLocaleString("en")} prompt tokens to ` +
    `compute; report ${seconds(worker.load_age_s)} old`));
  card.append(element("p", broken.length ? "tag bad" : "", broken.length
    ? `breakers: ${broken.map(([phase, state]) => `${phase} ${state}`).join(", ")}` : "breakers closed"));
  return card;
}

function figure(name, value) {
  const box = element("div", "figure");
  box.append(element("b", "", value), element("span", "", name));
  return box;
}

function verdict(status) {
  if (status.is_draining) return ["This gateway is shutting down.", "bad"];
  if (!status.workers.length) return ["No worker: every call is refused.", "bad"];
  if (!status.is_serving) return ["All workers are shutting down.", "bad"];
  if (status.away.length) return [`Serving; away: ${status.away.join(", ")}.`, "bad"];
  const full = status.workers.every((worker) => Math.max(worker.blocks.used, worker.blocks.reserved) >= 0.95 * worker.blocks.total);
  return full ? ["Serving; all workers are full.", "good"] : ["Serving.", "good"];
}

function draw(status) {
  const [text, className] = verdict(status);
  const line = document.getElementById("verdict");
  line.textContent = text;
  line.className = className;
  document.getElementById("version").textContent = `${status.version}, ${status.runtime}`;
  const waiting = status.waiting.reduce((sum, row) => sum + row.requests, 0);
  const refused = status.refusals.reduce((sum, row) => sum + row.count, 0);
  document.getElementById("figures").replaceChildren(
    figure("calls held", `${status.calls.in_flight}`),
    figure("waiting", `${waiting}`),
    figure("first token, median", seconds(status.first_token_s && status.first_token_s.p50)),
    figure("first token, p99", seconds(status.first_token_s && status.first_token_s.p99)),
    figure("tokens/s", status.workers.reduce((sum, worker) => sum + worker.decode_tokens_per_s, 0).toLocaleString("en")),
    figure("refused", refused.toLocaleString("en")),
    figure("event loop late", seconds(status.event_loop_lag_s)),
  );
  document.getElementById("workers").replaceChildren(...status.workers.map(drawWorker));
  fill("waiting", status.waiting.map((row) => [[row.criticality], [row.tenant || "(none)"], [`${row.requests}`, "n"]]), "Nobody waits.");
  fill("refusals", status.refusals.map((row) =>
    [[row.tenant || "(none)"], [row.criticality], [row.reason, "bad"], [row.count.toLocaleString("en"), "n"], [row.latest.explanation],
      [`${seconds(row.latest.age_s)} ago`, "n"], [seconds(row.latest.retry_after_s), "n"]]), "Nobody was refused.");
  fill("latest", status.latest.map((row) => [
    [`${seconds(row.age_s)} ago`, "n"], [row.tenant || "(none)"], [row.criticality],
    [row.outcome, row.outcome === "ok" || row.outcome === "cancelled" ? "" : "bad"], [row.explanation],
    [seconds(row.waited_s), "n"], [seconds(row.first_token_s), "n"], [`${row.output_tokens}`, "n"], [`${row.attempts}`, "n"],
  ]), "Nothing yet.");
}

async function refresh() {
  try {
    const response = await fetch("status.json");
    draw(await response.json());
  } catch (error) {
    const line = document.getElementById("verdict");
    line.textContent = "The gateway does not answer.";
    line.className = "bad";
  }
  setTimeout(refresh, 1000);
}

refresh();
