(* SPDX-License-Identifier: BSD-2-Clause *)
let () =
  let t = Hashtbl.create 16 and s = ref 1 in
  for _ = 1 to 1000000 do
    s := (!s * 1103515245 + 12345) land 0x7fffffff;
    Hashtbl.replace t (!s lsr 8 mod 5000) (String.make (!s mod 200) 'x')
  done;
  Gc.compact ();
  Printf.printf "%d\n" (Hashtbl.fold (fun k v a -> (a + k * String.length v) land 0xffffff) t 0);
  let rec deep n = 1 + deep (n + 1) in
  print_endline (try string_of_int (deep 0) with Stack_overflow -> "deep")
