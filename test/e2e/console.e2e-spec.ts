import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { boxes, Fleet, waitFor } from '@matfleet/harness';
import { chromium, type BrowserContext, type Locator, type Page } from 'playwright-core';

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const ifChromium = executablePath ? describe : describe.skip;

ifChromium('the console in a browser', () => {
  let fleet: Fleet;
  let profile: string;
  let browser: BrowserContext;
  let page: Page;
  const faults: string[] = [];

  beforeAll(async () => {
    fleet = await Fleet.start({});
    await fleet.converged(fleet.model.versionId);
    profile = await mkdtemp(join(tmpdir(), 'matfleet-console-'));
    browser = await chromium.launchPersistentContext(profile, {
      executablePath: executablePath!,
      headless: true,
      viewport: { width: 1440, height: 900 },
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    });
    page = browser.pages()[0] ?? (await browser.newPage());
    page.setDefaultTimeout(15_000);
    page.on('pageerror', (error) => faults.push(String(error)));
    page.on('console', (message) => message.text().includes('subscription') && faults.push(message.text()));
  }, 180_000);

  afterAll(async () => {
    await browser?.close();
    await fleet?.stop();
    if (profile) await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }, 60_000);

  const row = (name: string): Locator => page.locator(`[data-device="${name}"]`);

  it('refuses a wrong key and keeps the right one out of reach of scripts', async () => {
    await page.goto(fleet.controlPlane.httpUrl);
    await page.getByLabel('API key').fill('not-a-key');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('This key is not known here').waitFor();

    const apiKey = (await readFile(fleet.controlPlane.apiKeyFile, 'utf8')).trim();
    await page.getByLabel('API key').fill(apiKey);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('Live', { exact: true }).waitFor();
    const cookie = (await browser.cookies()).find(({ name }) => name === 'matfleet_session');
    expect({ httpOnly: cookie?.httpOnly, sameSite: cookie?.sameSite }).toEqual({ httpOnly: true, sameSite: 'Strict' });
    const kept = await page.evaluate<string>('JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }])');
    expect(kept).not.toContain(apiKey);
    expect(kept).not.toContain(cookie!.value);
  }, 60_000);

  it('shows every device with its own slice and the reason that the control plane gave', async () => {
    const slices = new Set<string>();
    for (const { name } of boxes) {
      const device = await fleet.api.device(name);
      await row(name).getByText('online', { exact: true }).waitFor();
      await row(name).getByText(device.desired!.reason).waitFor();
      slices.add((await row(name).locator('[data-field="slice"]').textContent())!);
    }
    expect(slices.size).toBe(boxes.length);
  }, 60_000);

  it('explains a slice with every candidate, one of them chosen', async () => {
    const device = await fleet.api.device('kiosk');
    const [assignment] = await fleet.api.assignments(device.id);
    await page.getByRole('button', { name: 'Why this slice on kiosk' }).click();
    const candidates = page.getByRole('region', { name: 'Candidate slices' }).locator('tbody tr');
    await candidates.first().waitFor();
    expect(await candidates.count()).toBe(assignment!.explanation.candidates.length);
    expect(await candidates.filter({ hasText: 'chosen' }).count()).toBe(1);
    for (const { why } of assignment!.explanation.candidates) await candidates.filter({ hasText: why }).first().waitFor();
    await page.keyboard.press('Escape');
    await candidates.first().waitFor({ state: 'detached' });
  }, 60_000);

  it('shows what happened to a device, and what happens while one looks', async () => {
    await page.getByRole('button', { name: 'Why this slice on kiosk' }).click();
    await page.getByRole('tab', { name: 'Timeline' }).click();
    const timeline = page.getByRole('region', { name: 'Timeline' });
    const device = await fleet.api.device('kiosk');
    await timeline.locator('[data-kind="assigned"]').filter({ hasText: device.desired!.reason }).first().waitFor();
    expect(await timeline.locator('li').last().textContent()).toContain('device.enrolled');
    await fleet.api.request('POST', `/api/v1/devices/${device.id}/keys`, { publicKeyHash: 'ab'.repeat(32) });
    await timeline.locator('[data-kind="change"]').filter({ hasText: 'device.key-offered' }).waitFor();
    await page.keyboard.press('Escape');
    await timeline.waitFor({ state: 'detached' });
  }, 60_000);

  it('sends an inference that only the largest device may answer, and names it with its slice', async () => {
    const server = await fleet.api.device('server');
    const { slices } = (await fleet.api.models()).find(({ id }) => id === fleet.model.versionId)!;
    const best = slices.find(({ id }) => id === server.observed!.sliceId)!.quality!.value;
    await page.getByLabel('Prompt').fill('drop the cold store to minus eighteen');
    await page.getByLabel('Quality floor').fill(String(Math.floor(best * 1000) / 10));
    await page.getByText('Met by server.').waitFor();
    await page.getByRole('button', { name: 'Send' }).click();
    const answer = page.locator('[data-inference]').first();
    await answer.getByText('Answered', { exact: true }).waitFor({ timeout: 45_000 });
    expect(await answer.locator('[data-field="answered-by"]').textContent()).toContain('server');
    expect((await answer.locator('[data-field="answer"]').textContent())!.trim()).not.toBe('');
    expect(await answer.locator('[data-attempt="succeeded"]').count()).toBe(1);
  }, 90_000);

  it('plots what was measured once a device has answered', async () => {
    await row('server').locator('[data-plot="ttftMs"] [data-field="ttftMs"]').filter({ hasText: 'ms' }).waitFor({ timeout: 45_000 });
    // A line needs two windows; every box answers its own application meanwhile.
    const canvas = row('server').locator('[data-plot="tokensPerSecond"] canvas');
    await waitFor(
      'a plot with two samples',
      async () => {
        for (const { app } of fleet.agents) await app.ask({ prompt: 'turn the lights off in the office' });
        return (await canvas.count()) > 0 || undefined;
      },
      { timeoutMs: 60_000, everyMs: 500 },
    );
    await row('server')
      .getByRole('img', { name: /Time to first token: .* over the last \d+ samples/ })
      .waitFor();
  }, 120_000);

  it('follows a rollout through its waves to its end', async () => {
    await page.getByRole('combobox', { name: 'Bring all devices to' }).click();
    await page.getByRole('option').first().click();
    await page.getByRole('button', { name: 'Roll out to 3 devices' }).click();
    await page.getByText(/^Finished/).waitFor({ timeout: 45_000 });
    await page.getByRole('img', { name: 'Wave 1: 1 done' }).waitFor();
    await page.getByRole('img', { name: 'Wave 2: 2 done' }).waitFor();
    if (process.env['MATFLEET_TEST_SCREENSHOT']) await page.screenshot({ path: process.env['MATFLEET_TEST_SCREENSHOT'], fullPage: true });
  }, 90_000);

  it('says that a device is gone, and that it came back', async () => {
    await fleet.agent('gateway').stop();
    await row('gateway')
      .getByText(/^(suspect|offline)$/)
      .waitFor({ timeout: 30_000 });
    await fleet.agent('gateway').restart();
    await row('gateway').getByText('online', { exact: true }).waitFor({ timeout: 60_000 });
  }, 120_000);

  it('has no sideways scrolling on a narrow screen', async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    // The plots follow their column's width a frame later.
    await waitFor('the page to fit', async () => (await overhang(page)).length === 0 || undefined, { timeoutMs: 5_000 }).catch(() => undefined);
    const wide = await overhang(page);
    await page.setViewportSize({ width: 1440, height: 900 });
    expect(wide).toEqual([]);
  }, 30_000);

  it('decides about keys and devices, and shows in the audit log who decided what', async () => {
    const publicKeyHash = 'cd'.repeat(32);
    await fleet.api.request('POST', '/api/v1/enrolments', { publicKeyHash, name: 'newcomer' });
    await page.getByRole('link', { name: 'Identity' }).click();
    await page.getByRole('button', { name: 'Reject newcomer' }).click();
    await page.getByRole('button', { name: 'Accept newcomer' }).click();
    const standing = page.locator('[data-row="newcomer"]');
    await standing.getByText('accepted', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Revoke newcomer' }).click();
    await page.getByLabel('Reason').fill('lost in the post');
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke', exact: true }).click();
    await standing.getByText('lost in the post').waitFor();
    await page.getByRole('button', { name: 'Release newcomer' }).click();
    await standing.getByText('accepted', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Decommission newcomer' }).click();
    await page.getByLabel('Reason').fill('found, and sold');
    await page.getByRole('dialog').getByRole('button', { name: 'Decommission', exact: true }).click();
    await page.getByRole('region', { name: 'Decommissioned devices' }).getByText('found, and sold').waitFor();

    await page.getByRole('link', { name: 'Audit' }).click();
    const records = page.getByRole('region', { name: 'Audit records' });
    const newest = records.locator('tbody tr').first();
    await newest.getByText('device.decommissioned').waitFor();
    await newest.locator('summary').click();
    await newest.getByText('found, and sold').waitFor();
    for (const action of ['enrolment.preauthorised', 'enrolment.rejected', 'device.revoked', 'device.released'])
      await records.getByText(action, { exact: true }).first().waitFor();
    await page.goBack();
    await page.getByRole('region', { name: 'Standing of devices' }).waitFor();
    await page.getByRole('link', { name: 'Fleet' }).click();
    await row('kiosk').waitFor();
  }, 90_000);

  it('says when the control plane is away, and recovers by itself', async () => {
    await fleet.controlPlane.stop();
    await page.getByRole('alert').filter({ hasText: 'Connection lost.' }).waitFor({ timeout: 30_000 });
    await fleet.controlPlane.restart();
    await page.getByText('Live', { exact: true }).waitFor({ timeout: 60_000 });
    for (const { name } of boxes) await row(name).getByText('online', { exact: true }).waitFor({ timeout: 60_000 });
  }, 180_000);

  it('signs out', async () => {
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('API key').waitFor();
    expect((await browser.cookies()).find(({ name }) => name === 'matfleet_session')).toBeUndefined();
    expect(faults).toEqual([]);
  }, 30_000);
});

/** What reaches beyond the right edge of a page that scrolls sideways. */
const overhang = (page: Page): Promise<string[]> =>
  page.evaluate<string[]>(`(() => { const { scrollWidth, clientWidth } = document.documentElement; return scrollWidth <= clientWidth ? [] :
    [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > clientWidth + 0.5).map((e) => e.tagName + '.' + e.className + ' ' + Math.round(e.getBoundingClientRect().right)); })()`);
