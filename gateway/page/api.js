// The gateway's routes that the page uses. Addresses are relative, so that the page works behind a proxy
// that serves it under a prefix.
import { apiKey } from "./store.js";

// `status` 0: no answer came, or it broke off. `code` is the API's (`loading`, `queue_full`, ...).
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", retryAfterS = 0 } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // A proxy's page, not the gateway's answer.
  }
  return new ApiError(error.message ?? `HTTP ${response.status}`, {
    status: response.status,
    code: error.code ?? "",
    retryAfterS: Number(response.headers.get("Retry-After")) || 0,
  });
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey() !== "") headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
    throw new ApiError(error.message, { code: "unreachable" });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

const getJson = async (path) => (await request(path, { signal: AbortSignal.timeout(5000) })).json();

export const models = async () => (await getJson("v1/models")).data;
export const cluster = () => getJson("v1/cluster");

// The data of each server-sent event. Lines end with \n, \r\n or \r; a comment is a keep-alive.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line !== "" || data.length === 0) continue;
        yield data.join("\n");
        data = [];
      }
    }
  } finally {
    await reader.cancel().catch(() => {});  // whoever stops listening ends the request
  }
}

// Chunks of a chat completion, to the end that the server declares. Anything else throws: an ApiError, or
// an AbortError if `signal` says so.
export async function* chat(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      ...body, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true },
    }),
    signal,
  });
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, { status: 200, code: chunk.error.code ?? "" });
      yield chunk;
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    throw new ApiError(error.message, { code: "cut" });
  }
  throw new ApiError("the stream ended early", { code: "cut" });
}
