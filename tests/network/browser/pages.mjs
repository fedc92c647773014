#!/usr/bin/env node
// Opens pages in a headless Chromium, as people do, and tells what happened.
//
// usage: run.sh
//
// Each line of standard input is one visit and gets one line:
//   {"url", "width"?: 1280, "height"?: 900, "scheme"?: "light"|"dark", "script"?: true,
//    "keys"?: ["Tab", {"text": "alice"}], "judge"?: true, "shot"?: "FILE.png"}
//   {"status", "url", "title", "text",
//    "faults": [...],     what axe-core finds: rule and element
//    "noise": [...],      the console, errors of the page, dialogs, violations of its policy
//    "asked": [...],      the address of every request
//    "overflow": [...],   what is wider than the screen
//    "focus": [...]}      what has the focus after each key
// or {"error"}. Each visit has a context of its own, with nothing of the one before.
// The browser ends with standard input.
import { accessSync, constants, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

/** How long one step may take on a machine that is busy with other tests. */
const STEP_MS = 90_000

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

function program() {
  const names = process.env.CHROMIUM ? [process.env.CHROMIUM] : ['chromium', 'chromium-browser']
  for (const name of names) {
    const places = name.includes('/') ? [''] : process.env.PATH.split(':')
    for (const place of places) {
      const file = path.join(place, name)
      try {
        accessSync(file, constants.X_OK)
        return file
      } catch {
        // The next one.
      }
    }
  }
  console.error(
    `browser: ${names.join(' or ')} is missing (hint: on Debian: apt-get install chromium; ` +
      'elsewhere set CHROMIUM to the file of a Chromium or Chrome)',
  )
  process.exit(1)
}

// Without a sandbox, since containers allow none; the pages are this test's own.
const browser = await chromium.launch({
  executablePath: program(),
  headless: true,
  chromiumSandbox: false,
  timeout: STEP_MS,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  ],
})

/** What has the focus, as a short text. */
function focused() {
  const element = document.activeElement
  const name = element.getAttribute('aria-label') ?? element.innerText ?? ''
  const id = element.id ? `#${element.id}` : ''
  return `${element.localName}${id} ${name.trim().split('\n')[0]}`.trim()
}

/** The elements that reach over the right edge, but for those in what is scrolled by itself. */
function overflowing() {
  const width = document.documentElement.clientWidth
  const isScrolled = (element) => {
    for (let of = element; of; of = of.parentElement) {
      if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(of).overflowX)) return true
    }
    return false
  }
  const wide = [...document.body.querySelectorAll('*')].filter(
    (element) => element.getBoundingClientRect().right > width + 1 && !isScrolled(element),
  )
  const names = wide.map((element) => `${element.localName}.${element.getAttribute('class') ?? ''}`)
  if (document.documentElement.scrollWidth > width) names.push('the page')
  return [...new Set(names)]
}

async function visit(order) {
  const context = await browser.newContext({
    viewport: { width: order.width ?? 1280, height: order.height ?? 900 },
    colorScheme: order.scheme ?? 'light',
    javaScriptEnabled: order.script ?? true,
  })
  try {
    context.setDefaultTimeout(STEP_MS)
    const page = await context.newPage()
    const [noise, asked, focus] = [[], [], []]
    page.on('request', (request) => asked.push(request.url()))
    page.on('requestfailed', (request) => noise.push(`failed: ${request.url()}`))
    page.on('pageerror', (error) => noise.push(`error: ${error.message}`))
    page.on('dialog', (dialog) => {
      noise.push(`dialog: ${dialog.message()}`)
      dialog.dismiss()
    })
    page.on('console', (message) => {
      // A page with a status of its own is told of like this as well.
      const isStatus = message.text().startsWith('Failed to load resource: the server responded with a status')
      if (!(isStatus && message.location().url === page.url())) noise.push(`console: ${message.text()}`)
    })
    let response = await page.goto(order.url, { waitUntil: 'load' })
    page.on('response', (next) => {
      if (next.request().isNavigationRequest()) response = next
    })
    for (const key of order.keys ?? []) {
      const before = page.url()
      if (key.text !== undefined) await page.keyboard.type(key.text)
      else await page.keyboard.press(key)
      // The only key that leads to another address.
      if (key === 'Enter') await page.waitForURL((url) => url.href !== before)
      focus.push(await page.evaluate(focused))
    }
    if (order.shot) await page.screenshot({ path: order.shot, fullPage: order.whole ?? true })
    const faults = order.judge === false ? [] : await judge(page)
    return {
      status: response.status(),
      url: page.url(),
      title: await page.title(),
      text: await page.evaluate(() => document.body.innerText),
      faults, noise, asked, focus,
      overflow: await page.evaluate(overflowing),
    }
  } finally {
    await context.close()
  }
}

async function judge(page) {
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document))
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 200)} ${node.failureSummary}`))
}

for await (const line of createInterface(process.stdin)) {
  const answer = await visit(JSON.parse(line)).catch((error) => ({ error: error.message }))
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await browser.close()
