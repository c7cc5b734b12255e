------------------------------- MODULE worlds -------------------------------
(***************************************************************************)
(* The small worlds in which TLC explores tollgate.tla. Here is only who   *)
(* there is and who sends what to whom; numbers of faults and broken rules *)
(* are in the .cfg files, the algorithm is in tollgate.tla.                *)
(***************************************************************************)
EXTENDS tollgate, TLC

CONSTANTS m1, m2,          \* messages
          A, B,            \* partitions
          p1, p2,          \* processes
          w1, w2, w3       \* workers

\* Who works where.
OneEach     == w1 :> p1 @@ w2 :> p2
TwoAndOne   == w1 :> p1 @@ w2 :> p1 @@ w3 :> p2

\* Receiver: every message goes to A, and no handler sends anything.
AllToA      == [m \in Messages |-> A]
NothingSent == [m \in Messages |-> {}]

\* Chain: m1 goes to A, whose handler sends m2 to B.
AThenB      == m1 :> A @@ m2 :> B
OneSendsTwo == m1 :> {m2} @@ m2 :> {}

\* What can be renamed without changing anything. Never used together with liveness, where it is unsound.
\* (Each set has the identity because TLC refuses a set of one.)
Swap(x, y)        == x :> y @@ y :> x
Same(x, y)        == x :> x @@ y :> y
AlikeProcesses    == {Swap(w1, w2) @@ Swap(p1, p2), Same(w1, w2) @@ Same(p1, p2)}
AlikeWorkers      == {Swap(w1, w2), Same(w1, w2)}
AlikeMessages     == {Swap(m1, m2), Same(m1, m2)}
ReceiverOneEach   == AlikeProcesses \cup AlikeMessages
ReceiverTwoAndOne == AlikeWorkers \cup AlikeMessages

=============================================================================
