// Stream one answer from Node.js, without generated code: node generate.js TARGET MODEL QUESTION
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));
const [target, model, question] = process.argv.slice(2);
if (question === undefined) {
  console.error("usage: node generate.js TARGET MODEL QUESTION");
  process.exit(2);
}

const definition = protoLoader.loadSync("tidegate/inference/v1/inference_service.proto", {
  includeDirs: [PROTOS],
  keepCase: true,
  enums: String,
});
const { InferenceService } = grpc.loadPackageDefinition(definition).tidegate.inference.v1;
const client = new InferenceService(target, grpc.credentials.createInsecure(), {
  // gRPC itself then retries UNAVAILABLE, after the wait that the server names, while nothing has come.
  "grpc.service_config": readFileSync(`${PROTOS}/service_config.json`, "utf8"),
});

const call = client.Generate(
  { model, chat: { messages: [{ role: "CHAT_ROLE_USER", content: question }] } },
  { deadline: Date.now() + 60_000 },
);
process.once("SIGINT", () => call.cancel()); // the worker frees the request's KV blocks

call.on("data", ({ delta }) => process.stdout.write((delta?.text ?? []).join("")));
call.on("end", () => process.stdout.write("\n"));
call.on("error", (error) => {
  // google.rpc.Status with ErrorInfo, BadRequest and RetryInfo lies in this key; docs/errors.md explains each reason.
  const details = error.metadata.get("grpc-status-details-bin");
  console.error(`${grpc.status[error.code]}: ${error.details} (${details.length ? "with details" : "no details"})`);
  process.exitCode = 1;
});
call.on("status", () => client.close());
