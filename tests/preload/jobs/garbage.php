<?php // SPDX-License-Identifier: BSD-2-Clause
$kept = []; $s = 1;
for ($i = 0; $i < 400000; $i++) {
	$s = ($s * 1103515245 + 12345) & 0x7fffffff;
	$kept[($s >> 8) % 4000] = str_repeat('x', $s % 300) . $i;
}
ksort($kept);
echo md5(implode('', $kept)), "\n", gc_collect_cycles(), "\n";
preg_match_all('/x+(\d)(\d+)/', implode(' ', $kept), $m);
echo count($m[0]), ' ', array_sum($m[1]), "\n", shell_exec('echo hi');
