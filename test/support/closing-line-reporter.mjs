/** Prints skipped specs loudly and closes with the plain line `N passed, N failed[, N skipped]`, counted from Jest's own result. */
export default class ClosingLine {
  onRunComplete(_contexts, result) {
    const skipped = result.testResults.flatMap((file) => file.testResults.filter((t) => t.status === 'pending').map((t) => t.fullName));
    for (const name of skipped) console.log(`SKIPPED: ${name}`);
    // A spec file that cannot be loaded has no failed test in it; it counts as one.
    const failed = result.numFailedTests + result.numRuntimeErrorTestSuites;
    if (skipped.length > 0 && process.env.MATFLEET_TEST_REQUIRE_ALL === '1')
      this.error = new Error(`MATFLEET_TEST_REQUIRE_ALL=1 and ${skipped.length} tests were skipped`);
    const line = `${result.numPassedTests} passed, ${failed + (this.error ? skipped.length : 0)} failed`;
    // Jest prints its own summary after its reporters; the plain line closes the run.
    process.on('exit', () => console.log(skipped.length ? `${line}, ${skipped.length} skipped` : line));
  }
  getLastError() {
    return this.error;
  }
}
