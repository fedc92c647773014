// A plain XRPC client for the control operations.
import { Failure } from './failure.mjs'
import { passHeaders } from './gate.mjs'

/**
 * Call `nsid` at `baseUrl`: a POST when there is a `body` (JSON) or `rawBody`,
 * else a GET unless `method` says otherwise. Any status but 2xx is a Failure.
 */
export async function xrpc(baseUrl, nsid, { params, body, rawBody, token, basic, method, headers } = {}) {
  const url = new URL(`/xrpc/${nsid}`, baseUrl)
  for (const [name, value] of Object.entries(params ?? {}))
    for (const item of [value].flat()) url.searchParams.append(name, String(item))
  const sent = { ...passHeaders(), ...headers }
  if (token) sent.authorization = `Bearer ${token}`
  if (basic) sent.authorization = `Basic ${Buffer.from(basic).toString('base64')}`
  let payload = rawBody
  if (body !== undefined) {
    payload = JSON.stringify(body)
    sent['content-type'] = 'application/json'
  }
  const verb = method ?? (payload === undefined ? 'GET' : 'POST')
  const res = await fetch(url, { method: verb, headers: sent, body: payload })
  const bytes = Buffer.from(await res.arrayBuffer())
  if (!res.ok) throw new Failure(res.status, `${nsid}: ${res.status} ${bytes.toString().slice(0, 400)}`)
  const isJson = res.headers.get('content-type')?.includes('json')
  return isJson ? JSON.parse(bytes.toString() || 'null') : bytes
}
