// npm run test:tuf: the attack list as a table, one row an attack.
export default class TufReport {
  onRunComplete(_contexts, { testResults }) {
    const rows = testResults.flatMap(({ testResults: tests }) => tests);
    const attacks = rows.map(({ ancestorTitles, title, status, duration }) => [
      ancestorTitles.slice(1).join(', ') || 'state',
      title,
      status,
      duration,
    ]);
    console.log(`\n# Signed metadata under attack\n\n| against | a device … | result | ms |\n| --- | --- | --- | --: |`);
    for (const [against, title, status, duration] of attacks)
      console.log(`| ${against} | ${title} | ${status === 'passed' ? 'held' : status} | ${duration ?? ''} |`);
    const held = attacks.filter(([, , status]) => status === 'passed').length;
    console.log(`\n${held} of ${attacks.length} held`);
    for (const { failureMessage } of testResults) if (failureMessage) console.log(failureMessage);
  }
}
