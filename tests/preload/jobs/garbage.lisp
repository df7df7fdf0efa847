; SPDX-License-Identifier: BSD-2-Clause
; A collector that hears of writes to old pages by SIGSEGV; and errors that come from the program.
(defvar *kept* (make-array 5000 :initial-element nil))
(let ((state 1))
  (dotimes (i 1500000)
    (setf state (mod (+ (* state 1103515245) 12345) 2147483648))
    (let ((at (mod (ash state -8) 5000)))
      (if (zerop (mod (ash state -16) 50))
          (setf (aref *kept* at) nil)
          (push (list i state) (aref *kept* at))))))
(gc :full t)
(format t "~a~%" (let ((sum 0))
  (loop for l across *kept* do
    (dolist (x l) (setf sum (mod (+ (* sum 31) (first x) (second x)) 1000000007))))
  sum))
(format t "~a~%" (handler-case (sb-sys:sap-ref-8 (sb-sys:int-sap 16) 0) (sb-sys:memory-fault-error () "fault")))
(labels ((deep (n) (1+ (deep (1+ n)))))
  (format t "~a~%" (handler-case (deep 0) (sb-kernel::control-stack-exhausted () "deep"))))
