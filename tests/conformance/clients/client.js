// Makes the calls that stdin asks for, one JSON object a line, and prints how each went: grpc-js.
// Options: ADDRESS [FILE with the certificate authority]. Bytes are base64.
'use strict';

const fs = require('fs');
const readline = require('readline');
const grpc = require('@grpc/grpc-js');

const [address, authority] = process.argv.slice(2);
const credentials = authority
  ? grpc.credentials.createSsl(fs.readFileSync(authority))
  : grpc.credentials.createInsecure();
const client = new grpc.Client(address, credentials, { 'grpc.max_receive_message_length': -1 });
const calls = new Map();

const bytes = (message) => message;

function metadataOf(pairs) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of pairs) {
    metadata.add(key, key.endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  }
  return metadata;
}

function pairsOf(metadata) {
  const pairs = [];
  for (const key of Object.keys(metadata.getMap())) {
    for (const value of metadata.get(key)) {
      pairs.push([key, Buffer.isBuffer(value) ? value.toString('base64') : value]);
    }
  }
  return pairs;
}

function tell(outcome) {
  process.stdout.write(JSON.stringify(outcome) + '\n');
}

function start(asked) {
  const requests = asked.requests.map((request) => Buffer.from(request, 'base64'));
  const options = asked.timeout_s === null ? {} : { deadline: Date.now() + 1000 * asked.timeout_s };
  const outcome = { id: asked.id, received: [], initial: [] };
  const common = [asked.method, bytes, bytes];
  const metadata = metadataOf(asked.metadata);
  const call =
    requests.length === 1
      ? client.makeServerStreamRequest(...common, requests[0], metadata, options)
      : client.makeBidiStreamRequest(...common, metadata, options);
  calls.set(asked.id, call);
  call.on('metadata', (initial) => {
    outcome.initial = pairsOf(initial);
  });
  call.on('data', (message) => {
    outcome.received.push(message.toString('base64'));
    if (outcome.received.length === asked.cancel_after) call.cancel();
    if (asked.pause_s > 0) {
      call.pause();
      setTimeout(() => call.resume(), 1000 * asked.pause_s);
    }
  });
  call.on('error', () => {}); // its status comes by itself
  call.on('status', (status) => {
    calls.delete(asked.id);
    Object.assign(outcome, { code: status.code, message: status.details, trailing: pairsOf(status.metadata) });
    // The status of a good call comes before the messages that a slow reader has still to read.
    if (status.code === grpc.status.OK && !call.readableEnded) call.on('end', () => tell(outcome));
    else tell(outcome);
  });
  if (requests.length !== 1) {
    requests.forEach((request) => call.write(request));
    call.end();
  }
}

readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => {
    const asked = JSON.parse(line);
    if (asked.cancel) calls.get(asked.id)?.cancel();
    else start(asked);
  })
  .on('close', () => process.exit(0));
process.stdout.write('ready\n');
