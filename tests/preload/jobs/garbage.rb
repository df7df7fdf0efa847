# SPDX-License-Identifier: BSD-2-Clause
require 'digest'
threads = 4.times.map do |n|
  Thread.new do
    kept, state = {}, n + 1
    100_000.times do |i|
      state = (state * 1103515245 + 12345) & 0x7fffffff
      kept[(state >> 8) % 3000] = 'x' * (state % 300) + i.to_s
    end
    Digest::MD5.hexdigest(kept.sort.map { |k, v| "#{k}#{v}" }.join)
  end
end
puts threads.map(&:value)
GC.start; GC.compact
5.times { |i| pid = fork { exit!(i) }; Process.wait(pid); puts $?.exitstatus }
r, w = IO.pipe
fork { r.close; w.write('y' * 300_000); exit!(0) }
w.close
puts r.read.size
Process.wait
puts `echo hi`
