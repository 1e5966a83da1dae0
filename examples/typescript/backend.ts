// A backend in TypeScript: GET /draw?prompt=… draws by gRPC and answers with server-sent events (examples/README.md).
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import * as grpc from "@grpc/grpc-js";
import { loadSync, type MessageTypeDefinition } from "@grpc/proto-loader";
import type { ProtoGrpcType } from "./build/types/images.js";
import type { BadRequest__Output } from "./build/types/google/rpc/BadRequest.js";
import type { ErrorInfo__Output } from "./build/types/google/rpc/ErrorInfo.js";
import type { RetryInfo__Output } from "./build/types/google/rpc/RetryInfo.js";
import type { Status__Output } from "./build/types/google/rpc/Status.js";
import type { GenerateEvent__Output } from "./build/types/hart/v1/GenerateEvent.js";

const endpoint = process.env.HART_ENDPOINT ?? "127.0.0.1:50051";
const definitions = loadSync(
  ["hart/v1/images.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  { includeDirs: ["../../protos", "node_modules/google-proto-files"], defaults: true, oneofs: true, longs: String, enums: String },
);
const { hart } = grpc.loadPackageDefinition(definitions) as unknown as ProtoGrpcType;
const images = new hart.v1.Images(endpoint, grpc.credentials.createInsecure(), {
  "grpc.service_config": readFileSync("../../client/hart/service_config.json", "utf8"),
  "grpc.max_receive_message_length": -1,
});

function decoded<T>(name: string, bytes: Buffer): T {
  return (definitions[name] as MessageTypeDefinition<object, object>).deserialize(bytes) as T;
}

// The status and its details; a status without details comes from gRPC itself or from a proxy.
function described(error: grpc.ServiceError): object {
  const found: Record<string, unknown> = { code: grpc.status[error.code], message: error.details };
  const [packed] = error.metadata.get("grpc-status-details-bin");
  if (!(packed instanceof Buffer)) return found;
  for (const { type_url, value } of decoded<Status__Output>("google.rpc.Status", packed).details) {
    const name = type_url.slice(type_url.lastIndexOf("/") + 1);
    if (name === "google.rpc.ErrorInfo") {
      const { reason, metadata } = decoded<ErrorInfo__Output>(name, value);
      Object.assign(found, { reason, metadata });
    } else if (name === "google.rpc.BadRequest") {
      const { fieldViolations } = decoded<BadRequest__Output>(name, value);
      found.fields = Object.fromEntries(fieldViolations.map(({ field, description }) => [field, description]));
    } else if (name === "google.rpc.RetryInfo") {
      const { retryDelay } = decoded<RetryInfo__Output>(name, value);
      found.retryAfterSeconds = Number(retryDelay?.seconds ?? 0) + (retryDelay?.nanos ?? 0) / 1e9;
    }
  }
  return found;
}

const server = createServer((request, response) => {
  const query = new URL(request.url ?? "/", "http://localhost").searchParams;
  const send = (name: string, data: object) => response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  const call = images.generateStream(
    { prompt: query.get("prompt") ?? "", seed: query.get("seed") ?? undefined, previewEvery: 1 },
    { deadline: Date.now() + 1000 * Number(query.get("seconds") ?? 30) },
  );
  call.on("data", ({ progress, image }: GenerateEvent__Output) => {
    if (progress?.preview) send("preview", { scale: progress.scale, image: progress.preview.data.toString("base64") });
    if (image) send("image", { seed: image.seed, image: image.data.toString("base64") });
  });
  call.on("error", (error: grpc.ServiceError) => response.end(`event: error\ndata: ${JSON.stringify(described(error))}\n\n`));
  call.on("end", () => response.end());
  response.on("close", () => call.cancel()); // stops the work; without effect on a call that has ended
});
server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1");
