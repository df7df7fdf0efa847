// SPDX-License-Identifier: BSD-2-Clause
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const zlib = require('zlib'), crypto = require('crypto');

function work(seed) {
	let kept = new Map(), state = BigInt(seed), hash = crypto.createHash('sha256');
	for (let i = 0; i < 150000; i++) {
		state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
		kept.set(Number(state >> 33n) & 4095, { i, text: 'x'.repeat(Number(state >> 56n)) + i });
	}
	for (const k of [...kept.keys()].sort((a, b) => a - b))
		hash.update(kept.get(k).text);
	return hash.digest('hex');
}

if (isMainThread) {
	const results = [];
	for (let i = 0; i < 3; i++)
		new Worker(__filename, { workerData: i }).on('message', m => {
			results[i] = m;
			if (results.filter(x => x).length === 3) {
				const text = Buffer.from(results.join('\n').repeat(20000));
				zlib.gzip(text, (e, z) => zlib.gunzip(z, (e2, t) => {
					console.log(results.join('\n'), text.equals(t));
					console.log(require('child_process').execSync('echo child').toString());
				}));
			}
		});
} else
	parentPort.postMessage(work(workerData));
