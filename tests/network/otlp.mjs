#!/usr/bin/env node
// A receiver of metrics by OTLP over HTTP, as a Prometheus or a collector has one.
//
// usage: node.sh otlp.mjs
//
// Prints {"url"} when it listens, and for each request {"path", "contentType", "metrics"} with the
// decoded message. The first request is answered 503, as a receiver that is just starting would.
// It ends with its standard input.
import http from 'node:http'
import protobuf from 'protobufjs'
import { listen } from './loopback.mjs'

// Names and numbers of opentelemetry/proto/metrics/v1/metrics.proto and of what it refers to.
const schema = `
syntax = "proto3";
message Request { repeated ResourceMetrics resourceMetrics = 1; }
message ResourceMetrics { Resource resource = 1; repeated ScopeMetrics scopeMetrics = 2; string schemaUrl = 3; }
message Resource { repeated KeyValue attributes = 1; uint32 droppedAttributesCount = 2; }
message ScopeMetrics { Scope scope = 1; repeated Metric metrics = 2; string schemaUrl = 3; }
message Scope { string name = 1; string version = 2; }
message KeyValue { string key = 1; AnyValue value = 2; }
message AnyValue { oneof value { string stringValue = 1; bool boolValue = 2; int64 intValue = 3; double doubleValue = 4; } }
message Metric {
  string name = 1; string description = 2; string unit = 3;
  oneof data { Gauge gauge = 5; Sum sum = 7; Histogram histogram = 9; }
}
enum Temporality { UNSPECIFIED = 0; DELTA = 1; CUMULATIVE = 2; }
message Gauge { repeated NumberDataPoint dataPoints = 1; }
message Sum { repeated NumberDataPoint dataPoints = 1; Temporality aggregationTemporality = 2; bool isMonotonic = 3; }
message Histogram { repeated HistogramDataPoint dataPoints = 1; Temporality aggregationTemporality = 2; }
message NumberDataPoint {
  fixed64 startTimeUnixNano = 2; fixed64 timeUnixNano = 3;
  oneof value { double asDouble = 4; sfixed64 asInt = 6; }
  repeated KeyValue attributes = 7;
}
message HistogramDataPoint {
  fixed64 startTimeUnixNano = 2; fixed64 timeUnixNano = 3; fixed64 count = 4; optional double sum = 5;
  repeated fixed64 bucketCounts = 6; repeated double explicitBounds = 7; repeated KeyValue attributes = 9;
}`
const { root } = protobuf.parse(schema, { keepCase: true })
const Request = root.lookupType('Request')

let requests = 0
const server = http.createServer(async (req, res) => {
  const chunks = []
  for await (const chunk of req) chunks.push(chunk)
  requests += 1
  const metrics = Request.toObject(Request.decode(Buffer.concat(chunks)), { longs: Number, enums: String })
  console.log(JSON.stringify({ path: req.url, contentType: req.headers['content-type'], metrics }))
  res.writeHead(requests === 1 ? 503 : 200, { 'content-type': 'application/x-protobuf' })
  res.end()
})
const port = await listen(server, 0)
console.log(JSON.stringify({ url: `http://localhost:${port}` }))
process.stdin.on('end', () => process.exit(0)).resume()
