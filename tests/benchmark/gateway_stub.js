// SSLCommerz's Order Validation API for the benchmark: the same server, delay and tail as the peer's
// gateway stub, but with the answer's full set of fields. It keeps no state: a val_id carries what is
// needed, 26 characters of the attempt's ULID and the amount in poisha, as tests/benchmark/makers.py
// makes it.
const http = require('http');

const delay = Number(process.env.GW_DELAY_MS || 0);
const tail = Number(process.env.GW_TAIL || 0);
const tailDelay = Number(process.env.GW_TAIL_MS || 2000);
const PATH = '/validator/api/validationserverAPI.php?';
const ULID_LENGTH = 26;

function answer(url) {
  const query = new URLSearchParams(url.slice(PATH.length));
  const valId = query.get('val_id') || '';
  const poisha = Number(valId.slice(ULID_LENGTH));
  if (!url.startsWith(PATH) || valId.length <= ULID_LENGTH || !query.get('store_passwd')) {
    return { status: 'INVALID_TRANSACTION', APIConnect: 'DONE' };
  }
  const amount = (poisha / 100).toFixed(2);
  return {
    status: 'VALID',
    tran_date: '2026-01-05 12:00:00',
    tran_id: 'att_' + valId.slice(0, ULID_LENGTH),
    val_id: valId,
    amount,
    store_amount: (poisha * 0.975 / 100).toFixed(2),
    currency: 'BDT',
    bank_tran_id: 'bank' + valId.slice(0, ULID_LENGTH),
    card_type: 'VISA-Demo Bank',
    card_no: '411111XXXXXX1111',
    card_issuer: 'DEMO BANK, LTD.',
    card_brand: 'VISA',
    card_sub_brand: 'Classic',
    card_issuer_country: 'Bangladesh',
    card_issuer_country_code: 'BD',
    currency_type: 'BDT',
    currency_amount: amount,
    currency_rate: '1.0000',
    base_fair: '0.00',
    value_a: '', value_b: '', value_c: '', value_d: '',
    emi_instalment: '0', emi_amount: '0.00', emi_description: '', emi_issuer: 'DEMO BANK, LTD.',
    account_details: '',
    risk_title: 'Safe',
    risk_level: '0',
    discount_percentage: '0', discount_remarks: '', discount_amount: '0.00',
    APIConnect: 'DONE',
    validated_on: '2026-01-05 12:00:01',
    gw_version: '',
    offer_avail: 0,
    isTokeizeSuccess: 0,
    campaign_code: '',
  };
}

const server = http.createServer((request, response) => {
  const send = () => {
    const body = JSON.stringify(answer(request.url));
    response.writeHead(200, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    });
    response.end(body);
  };
  const wait = tail && Math.random() < tail ? tailDelay : delay;
  if (wait) setTimeout(send, wait); else send();
});
server.keepAliveTimeout = 65000;
server.on('connection', (socket) => socket.setNoDelay(true));
server.listen(Number(process.env.GW_PORT), '127.0.0.1', 4096);
