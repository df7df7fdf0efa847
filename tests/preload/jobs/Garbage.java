// SPDX-License-Identifier: BSD-2-Clause
import java.util.*;
import java.util.concurrent.*;

/** Threads that make garbage, keep some of it, and sum up what is left. */
public class Garbage {
	static long work(int seed) {
		Map<Integer, byte[]> kept = new HashMap<>();
		long state = seed, sum = 0;

		for (int i = 0; i < 200000; i++) {
			state = state * 6364136223846793005L + 1442695040888963407L;
			byte[] b = new byte[(int)(state >>> 54)];
			Arrays.fill(b, (byte)i);
			kept.put((int)(state >>> 33) & 4095, b);
		}
		for (byte[] b : new TreeMap<>(kept).values())
			for (byte x : b)
				sum = sum * 31 + x;
		return sum;
	}

	public static void main(String[] args) throws Exception {
		ExecutorService pool = Executors.newFixedThreadPool(4);
		List<Future<Long>> sums = new ArrayList<>();

		for (int i = 0; i < 8; i++) {
			int seed = i;
			sums.add(pool.submit(() -> work(seed)));
		}
		for (Future<Long> s : sums)
			System.out.println(s.get());
		pool.shutdown();
		// The virtual machine hears of these by SIGSEGV.
		int caught = 0;
		for (int i = 0; i < 100000; i++) {
			Object o = i % 3 == 0 ? null : sums;
			try {
				caught += o.hashCode() * 0;
			} catch (NullPointerException e) {
				caught++;
			}
		}
		System.out.println(caught);
	}
}
