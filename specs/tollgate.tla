------------------------------ MODULE tollgate ------------------------------
(***************************************************************************)
(* The algorithm of docs/design.md, for readers and porters.               *)
(*                                                                         *)
(* This room holds the algorithm and its guarantees, for any number of     *)
(* messages, partitions, processes and faults. Which ones there are is     *)
(* said in worlds.tla and in the .cfg files; it may not enter here.        *)
(* "Step n" is step n of section 3 of the design, R1 to R8 are the rules   *)
(* of its section 4. What is left out is listed in README.md.              *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets

CONSTANTS
  Messages,     \* all messages, those included that handlers send
  Partitions,   \* destination partitions; senders of inputs lie outside
  Processes,    \* each with its own memory: cached views and marks
  Workers,      \* tasks of processes
  ProcessOf,    \* worker -> its process
  To,           \* message -> its partition, chosen by the sender
  Sends,        \* message -> messages that its handler sends
  WithBlob,     \* messages whose handler creates a blob
  Copies,       \* so many copies of a message the broker holds at most
  Crashes, TimeOuts, LostAnswers, FailedCalls, Evictions, EarlySweeps,
  DeadLetters,  \* how often each fault may happen
  Overtakings,  \* how often an attempt may register while another one is on its way to its commit
  LateAttempts, \* how often an attempt's deadline may pass before its end
  Mutants,      \* names of rules that are broken, see README.md
  None          \* no value

VARIABLES
  control,   \* partition -> its control record, in the store
  entries,   \* outbox entries that exist: the tokens
  commits,   \* message -> the commits of its state change, in order
  blobs,     \* names of blobs that exist
  available, \* bag of envelopes that the broker would deliver
  sent,      \* envelopes that were ever sent (seen by nobody but the invariants)
  dead,      \* envelopes in the dead-letter queue
  cache,     \* process -> partition -> last view of its control record, or None
  marks,     \* process -> partition -> what is known to be over
  work,      \* worker -> what it is doing
  overdue,   \* names of blobs whose attempt's deadline has passed
  budget     \* faults that may still happen

stored  == <<control, entries, commits, blobs>>
broker  == <<available, sent, dead>>
memory  == <<cache, marks, work>>
vars    == <<stored, broker, memory, overdue, budget>>

-----------------------------------------------------------------------------
(* Records *)

\* A sequence numbers the commits of one partition. It stands for Sequence {incarnation, counter}: partitions are
\* never deleted here, so one incarnation is enough.

\* A token, and the envelope that carries it: which message, and the sequence of the commit that created its entry.
Token(m, sequence) == <<m, sequence>>
Message(token)     == token[1]
SequenceOf(token)  == token[2]

\* Inputs are sent by somebody outside, whose commit is before everything here.
Inputs == Messages \ UNION {Sends[m] : m \in Messages}

NoMarks == [finished |-> {}, cleaned |-> {}]

\* A pending entry, the marker: this token's message was committed with this sequence.
Pending(token, sequence) == [token |-> token, sequence |-> sequence]

\* The outbox entries that its commit created.
Outputs(pending) == {Token(o, pending.sequence) : o \in Sends[Message(pending.token)]}

\* What a worker does: where it is, for which delivery (None: a visit), in which room. In the lane it holds its process's
\* exclusive right to the partition (steps 1 to 5); in the tail it does not (steps 7 to 10).
Idle == [at |-> "idle", room |-> "none", token |-> None, partition |-> None, verdict |-> "done",
         seen |-> "unread", blob |-> None, todo |-> {}, done |-> {}, clean |-> {}]

Job(token, p) == [Idle EXCEPT !.at = "load", !.room = "lane", !.token = token, !.partition = p]

-----------------------------------------------------------------------------
(* The broker *)

Count(token) == IF token \in DOMAIN available THEN available[token] ELSE 0

\* More copies than Copies would make no difference that fewer don't make.
Offered(more) ==
  [t \in DOMAIN available \cup DOMAIN more |->
     LET all == Count(t) + (IF t \in DOMAIN more THEN more[t] ELSE 0)
     IN  IF all < Copies THEN all ELSE Copies]

One(tokens) == [t \in tokens |-> 1]

Without(token) ==
  IF available[token] = 1 THEN [t \in DOMAIN available \ {token} |-> available[t]]
                          ELSE [available EXCEPT ![token] = @ - 1]

\* What comes back to the broker when a worker gives up its delivery. R6 broken: it was acknowledged on receipt.
Held(job) == IF job.token = None \/ "R6" \in Mutants THEN {} ELSE {job.token}

\* A fault happens at most as often as its budget says.
Spend(fault) == budget[fault] > 0 /\ budget' = [budget EXCEPT ![fault] = @ - 1]

-----------------------------------------------------------------------------
(* What a worker decides without asking anybody *)

Process(w)   == ProcessOf[w]
Place(w)     == work[w].partition
View(w)      == cache[Process(w)][Place(w)]
MarksOf(w)   == marks[Process(w)][Place(w)]
At(w, place) == work[w].at = place

LaneFree(q, p) == \A w \in Workers : ~(ProcessOf[w] = q /\ work[w].room = "lane" /\ work[w].partition = p)

\* Marks of what the control record lists no more are forgotten.
Listed(marked, view) ==
  [finished |-> marked.finished \cap view.pending,
   cleaned  |-> marked.cleaned \cap {r.name : r \in view.registrations}]

\* The first thing to do in a completion, or behind one that is done: 7 publish, 7 clean up, 8 consume, 9 finish.
Stage(job, after) ==
  LET outputs == UNION {Outputs(e) : e \in job.todo}
      at == CASE after = "begin" /\ outputs # {}                       -> "publish"
              [] after \in {"begin", "publish"} /\ job.clean # {}      -> "clean"
              [] job.todo # {}                                         -> "consume"
              [] OTHER                                                 -> "finish"
  IN  [job EXCEPT !.at = at]

InTail(job, todo, clean) == Stage([job EXCEPT !.room = "tail", !.todo = todo, !.clean = clean], "begin")

IsOpenAndOverdue(r) == r.state = "open" /\ r.name \in overdue

NeedsTidying(view, marked) ==
  \/ view.pending \cap marked.finished # {}
  \/ \E r \in view.registrations : r.name \in marked.cleaned \/ IsOpenAndOverdue(r)

Ready(job) == [job EXCEPT !.at = IF Message(job.token) \in WithBlob THEN "register" ELSE "commit"]

\* Step 2: is there a marker? A visit has nothing to look for: it commits if that tidies something.
CheckMarker(job, view, marked) ==
  IF job.token = None
  THEN IF NeedsTidying(view, marked) THEN [job EXCEPT !.at = "commit"] ELSE Idle
  ELSE LET marker == {e \in view.pending : e.token = job.token}
       IN  CASE marker # {} /\ "step 2" \notin Mutants -> InTail(job, marker \ marked.finished, {})
             \* R1 broken: a token that was read before a reload is not read again. R4 broken: one read ahead is not.
             [] job.seen = "found"                     -> Ready(job)
             [] OTHER                                  -> [job EXCEPT !.at = "token"]

\* R5: whoever loads a partition completes what others have left, before anything else.
Recover(job, view, marked) ==
  LET unfinished == view.pending \ marked.finished
      due == {r \in view.registrations :
                /\ r.state = "condemned" \/ "fence" \in Mutants
                /\ r.name \in overdue
                /\ r.name \notin marked.cleaned}
      clean == {[name |-> r.name, afterwards |-> "drop"] : r \in due}
  IN  IF (unfinished = {} /\ due = {}) \/ "R5" \in Mutants
      THEN CheckMarker(job, view, marked)
      ELSE Stage([job EXCEPT !.todo = unfinished, !.clean = clean], "begin")

\* After a conflict or a lost answer: drop what is cached and go to step 1.
Again(job) == [job EXCEPT !.at = "load", !.blob = None, !.seen = IF "R1" \in Mutants THEN @ ELSE "unread"]

-----------------------------------------------------------------------------
(* The next control record *)

IsVisit(job) == job.token = None

\* R2: a marker leaves only when its token is known to be gone.
Carried(view, marked) == IF "R2" \in Mutants THEN {} ELSE view.pending \ marked.finished

\* A commit that registers a blob, under a name that no other attempt has: that of this very commit.
Registering(job, view, marked) ==
  LET next == view.version + 1
      kept == {r \in view.registrations : r.name \notin marked.cleaned}
  IN  [version |-> next, pending |-> Carried(view, marked),
       registrations |-> kept \cup {[name |-> Token(Message(job.token), next), state |-> "open"]}]

\* Registrations that the commit condemns: other attempts' at its message; by a visit, overdue ones, which fences them.
Condemned(job, view, marked) ==
  {r \in view.registrations :
     /\ r.state = "open"
     /\ r.name # job.blob
     /\ r.name \notin marked.cleaned
     /\ IF IsVisit(job) THEN r.name \in overdue ELSE r.name[1] = Message(job.token)}

\* The commit of a message, or of a visit that tidies up.
Committing(job, view, marked) ==
  LET next == view.version + 1
      kept == {r \in view.registrations : r.name # job.blob /\ r.name \notin marked.cleaned}
      condemned == Condemned(job, view, marked)
  IN  [version |-> next,
       pending |-> Carried(view, marked) \cup (IF IsVisit(job) THEN {} ELSE {Pending(job.token, next)}),
       registrations |-> (kept \ condemned) \cup {[r EXCEPT !.state = "condemned"] : r \in condemned}]

\* A stalled attempt may create its blob after the clean-up, so its registration stays until its deadline has passed.
CleanUps(job, view, marked) ==
  {[name |-> r.name, afterwards |-> IF r.name \in overdue \/ "condemn" \in Mutants THEN "drop" ELSE "keep"] :
     r \in Condemned(job, view, marked)}

\* R3: the condition on the version.
ConditionHolds(p, view) == control[p].version = view.version \/ "R3" \in Mutants

-----------------------------------------------------------------------------
(* Taking work *)

\* A delivery reaches an idle worker whose process has the lane of its partition free. What waits for a lane inside a
\* process is not told from what waits in the broker.
Take(w) == \E t \in DOMAIN available :
  LET p == To[Message(t)]  q == Process(w)  view == cache[q][p]  job == Job(t, p)
  IN  /\ At(w, "idle")
      /\ LaneFree(q, p)
      /\ "R4" \notin Mutants
      /\ available' = Without(t)
      /\ work' = [work EXCEPT ![w] = IF view = None THEN job ELSE CheckMarker(job, view, marks[q][p])]
      /\ UNCHANGED <<stored, sent, dead, cache, marks, overdue, budget>>

\* R4 broken: the token is read outside the lane, and that answer is used once the lane is free.
TakeAhead(w) == \E t \in DOMAIN available :
  /\ "R4" \in Mutants
  /\ At(w, "idle")
  /\ available' = Without(t)
  /\ work' = [work EXCEPT ![w] = [Job(t, To[Message(t)]) EXCEPT
                !.at = "queue", !.room = "tail", !.seen = IF t \in entries THEN "found" ELSE "unread"]]
  /\ UNCHANGED <<stored, sent, dead, cache, marks, overdue, budget>>

Enter(w) ==
  /\ At(w, "queue")
  /\ LaneFree(Process(w), Place(w))
  /\ LET job == [work[w] EXCEPT !.at = "load", !.room = "lane"]
     IN  work' = [work EXCEPT ![w] = IF View(w) = None THEN job ELSE CheckMarker(job, View(w), MarksOf(w))]
  /\ UNCHANGED <<stored, broker, cache, marks, overdue, budget>>

\* Step 9, the idle flush: marks are to leave the control record although no commit comes along.
Flush(w) == \E p \in Partitions :
  LET q == Process(w)  view == cache[q][p]
  IN  /\ At(w, "idle")
      /\ LaneFree(q, p)
      /\ marks[q][p] # NoMarks
      /\ IF view = None
         THEN /\ work' = [work EXCEPT ![w] = Job(None, p)]
              /\ UNCHANGED marks
         ELSE /\ work' = [work EXCEPT ![w] = CheckMarker(Job(None, p), view, marks[q][p])]
              /\ marks' = [marks EXCEPT ![q][p] = Listed(@, view)]
      /\ UNCHANGED <<stored, broker, cache, overdue, budget>>

\* R5, the sweep: somebody looks into a partition that has something unfinished and that this process does not work on.
SweepDue(p) ==
  \/ control[p].pending # {} /\ "R5" \notin Mutants
  \/ \E r \in control[p].registrations : r.name \in overdue

Visit(w, p) ==
  LET q == Process(w)
  IN  /\ At(w, "idle")
      /\ LaneFree(q, p)
      /\ marks[q][p] = NoMarks
      /\ SweepDue(p)
      /\ work' = [work EXCEPT ![w] = Job(None, p)]
      /\ UNCHANGED <<stored, broker, cache, marks, overdue>>

AllIdle == \A w \in Workers : At(w, "idle")

\* It comes round sooner or later; to let it come when nothing else moves is enough, and EarlySweeps times before that.
Sweep(w) == \E p \in Partitions :
  /\ AllIdle /\ DOMAIN available = {}
  /\ Visit(w, p)
  /\ UNCHANGED budget

-----------------------------------------------------------------------------
(* Steps 1 to 5, in the lane *)

\* Step 1: a strongly consistent read of the partition.
Load(w) ==
  LET q == Process(w)  p == Place(w)  view == control[p]  marked == Listed(MarksOf(w), view)
  IN  /\ At(w, "load")
      /\ cache' = [cache EXCEPT ![q][p] = view]
      /\ marks' = [marks EXCEPT ![q][p] = marked]
      /\ work' = [work EXCEPT ![w] = Recover(work[w], view, marked)]
      /\ UNCHANGED <<stored, broker, overdue, budget>>

\* Steps 3 and 4: read the outbox entry at the token; the handler runs on the view. R1: this comes after step 1, and again
\* after every reload. A missing token is a duplicate whose outputs are out (R8): acknowledge.
ReadToken(w) ==
  LET job == work[w]
      found == job.token \in entries
      early == IF found /\ "publish early" \in Mutants
               THEN {Token(o, View(w).version + 1) : o \in Sends[Message(job.token)]} ELSE {}
  IN  /\ At(w, "token")
      /\ work' = [work EXCEPT ![w] =
           IF found THEN Ready([job EXCEPT !.seen = IF "R1" \in Mutants THEN "found" ELSE @])
                    ELSE InTail(job, {}, {})]
      /\ available' = IF early = {} THEN available ELSE Offered(One(early))
      /\ sent' = sent \cup early
      /\ UNCHANGED <<stored, dead, cache, marks, overdue, budget>>

\* Section 6, register: the intent is written before anything is created.
DoRegister(w) ==
  LET p == Place(w)  next == Registering(work[w], View(w), MarksOf(w))
  IN  /\ control' = [control EXCEPT ![p] = next]
      /\ UNCHANGED <<entries, commits, blobs>>

\* Step 5: ONE conditional, partition-local transaction.
DoCommit(w) ==
  LET p == Place(w)  job == work[w]  next == Committing(job, View(w), MarksOf(w))
  IN  /\ control' = [control EXCEPT ![p] = next]
      /\ IF IsVisit(job)
         THEN UNCHANGED <<entries, commits>>
         ELSE /\ entries' = entries \cup Outputs(Pending(job.token, next.version))
              /\ commits' = [commits EXCEPT ![Message(job.token)] =
                               Append(@, [sequence |-> next.version, blob |-> job.blob])]
      /\ UNCHANGED blobs

\* What the worker does when it believes that its commit has happened.
Remember(w, next) ==
  LET q == Process(w)  p == Place(w)
  IN  /\ cache' = [cache EXCEPT ![q][p] = next]
      /\ marks' = [marks EXCEPT ![q][p] = Listed(@, next)]

Registered(w) ==
  LET next == Registering(work[w], View(w), MarksOf(w))
  IN  /\ Remember(w, next)
      /\ work' = [work EXCEPT ![w].at = "prepare", ![w].blob = Token(Message(work[w].token), next.version)]

Committed(w) ==
  LET job == work[w]  view == View(w)  next == Committing(job, view, MarksOf(w))
      todo == IF IsVisit(job) THEN {} ELSE {Pending(job.token, next.version)}
      clean == CleanUps(job, view, MarksOf(w))
  IN  /\ Remember(w, next)
      /\ work' = [work EXCEPT ![w] = IF IsVisit(job) /\ clean = {} THEN Idle
                                     ELSE InTail([job EXCEPT !.seen = "unread", !.blob = None], todo, clean)]

\* R7: a failed condition says no more than a lost answer does: reload, and the marker will tell.
LookAgain(w) ==
  /\ cache' = [cache EXCEPT ![Process(w)][Place(w)] = None]
  /\ work' = [work EXCEPT ![w] = Again(@)]
  /\ UNCHANGED marks

\* Attempts that register by turns, or visits that tidy up what those leave, make each other's commits conflict, for ever if
\* nobody backs off. Back-off is not modelled; instead, after so many times the later one waits for the earlier one.
Overtakes(w) ==
  \E v \in Workers \ {w} : /\ work[v].blob # None /\ Place(v) = Place(w)
                           /\ View(v) # None
                           /\ View(v).version = control[Place(w)].version

Register(w) ==
  /\ At(w, "register")
  /\ IF Overtakes(w) THEN Spend("overtakings") ELSE UNCHANGED budget
  /\ IF ConditionHolds(Place(w), View(w))
     THEN DoRegister(w) /\ Registered(w)
     ELSE UNCHANGED stored /\ LookAgain(w)
  /\ UNCHANGED <<broker, overdue>>

Commit(w) ==
  /\ At(w, "commit")
  /\ IF IsVisit(work[w]) /\ Overtakes(w) THEN Spend("overtakings") ELSE UNCHANGED budget
  /\ IF ConditionHolds(Place(w), View(w))
     THEN DoCommit(w) /\ Committed(w)
     ELSE UNCHANGED stored /\ LookAgain(w)
  /\ UNCHANGED <<broker, overdue>>

\* Section 6, prepare: create the blob, unless the attempt's own deadline has passed. Then the handler fails, its blob is
\* cleaned up and the message is put back. "slow upload" is no rule but a limit of the clock: between an attempt's look at it
\* and the upload lies any amount of time.
IsInTime(name) == name \notin overdue \/ "deadline" \in Mutants

LookAtClock(w) ==
  /\ "slow upload" \in Mutants
  /\ At(w, "prepare") /\ IsInTime(work[w].blob)
  /\ work' = [work EXCEPT ![w].at = "upload"]
  /\ UNCHANGED <<stored, broker, cache, marks, overdue, budget>>

Upload(w) ==
  /\ At(w, "upload")
  /\ blobs' = blobs \cup {work[w].blob}
  /\ work' = [work EXCEPT ![w].at = "commit"]
  /\ UNCHANGED <<control, entries, commits, broker, cache, marks, overdue, budget>>

Prepare(w) ==
  LET job == work[w]
  IN  /\ At(w, "prepare")
      /\ "slow upload" \notin Mutants \/ ~IsInTime(job.blob)
      /\ IF IsInTime(job.blob)
         THEN /\ blobs' = blobs \cup {job.blob}
              /\ work' = [work EXCEPT ![w].at = "commit"]
         ELSE /\ UNCHANGED blobs
              /\ work' = [work EXCEPT ![w] =
                   InTail([job EXCEPT !.verdict = "retry", !.blob = None], {},
                          {[name |-> job.blob, afterwards |-> "drop"]})]
      /\ UNCHANGED <<control, entries, commits, broker, cache, marks, overdue, budget>>

-----------------------------------------------------------------------------
(* Steps 7 to 10: in the lane for what others have left (R5), else in the tail *)

\* Step 7: send the outbox entries that still exist.
Publish(w) ==
  LET outputs == UNION {Outputs(e) : e \in work[w].todo} \cap entries
  IN  /\ At(w, "publish")
      /\ available' = Offered(One(outputs))
      /\ sent' = sent \cup outputs
      /\ work' = [work EXCEPT ![w] = Stage(@, "publish")]
      /\ UNCHANGED <<stored, dead, cache, marks, overdue, budget>>

\* Step 7: delete blobs of attempts that lost.
CleanUp(w) ==
  LET job == work[w]
      names == {c.name : c \in job.clean}
      over == {c.name : c \in {d \in job.clean : d.afterwards = "drop"}}
  IN  /\ At(w, "clean")
      /\ blobs' = blobs \ names
      /\ work' = [work EXCEPT ![w] = Stage([job EXCEPT !.clean = {}], "clean")]
      /\ marks' = [marks EXCEPT ![Process(w)][Place(w)].cleaned = @ \cup over]
      /\ UNCHANGED <<control, entries, commits, broker, cache, overdue, budget>>

\* Step 8: delete the outbox entry at the token, in the sender's partition. R8: after all of step 7.
Consume(w) == \E e \in work[w].todo :
  /\ At(w, "consume")
  /\ entries' = entries \ {e.token}
  /\ work' = [work EXCEPT ![w] = Stage([@ EXCEPT !.todo = @ \ {e}, !.done = @ \cup {e}], "consume")]
  /\ UNCHANGED <<control, commits, blobs, broker, cache, marks, overdue, budget>>

\* Steps 9 and 10: remember in memory that the pending entry is finished (R2: after 8), and acknowledge last (R6), or put
\* the message back. A recovery goes on with step 2 instead.
Finish(w) ==
  LET job == work[w]
      marked == [MarksOf(w) EXCEPT !.finished = @ \cup job.done]
  IN  /\ At(w, "finish")
      /\ marks' = [marks EXCEPT ![Process(w)][Place(w)] = marked]
      /\ IF job.room = "lane"
         THEN /\ work' = [work EXCEPT ![w] = CheckMarker([job EXCEPT !.done = {}], View(w), marked)]
              /\ UNCHANGED available
         ELSE /\ work' = [work EXCEPT ![w] = Idle]
              /\ available' = IF job.verdict = "retry" THEN Offered(One(Held(job))) ELSE available
      /\ UNCHANGED <<stored, sent, dead, cache, overdue, budget>>

-----------------------------------------------------------------------------
(* Faults. None of them is fair: each may happen, none must. *)

\* A process dies: its memory is lost, its deliveries come again.
Crash(q) ==
  LET dying == {w \in Workers : ProcessOf[w] = q}
      held == UNION {Held(work[w]) : w \in dying}
      more == [t \in held |-> Cardinality({w \in dying : work[w].token = t})]
  IN  /\ Spend("crashes")
      /\ \/ \E w \in dying : ~At(w, "idle")
         \/ \E p \in Partitions : cache[q][p] # None \/ marks[q][p] # NoMarks
      /\ available' = Offered(more)
      /\ work' = [w \in Workers |-> IF w \in dying THEN Idle ELSE work[w]]
      /\ cache' = [cache EXCEPT ![q] = [p \in Partitions |-> None]]
      /\ marks' = [marks EXCEPT ![q] = [p \in Partitions |-> NoMarks]]
      /\ UNCHANGED <<stored, sent, dead, overdue>>

\* The broker delivers again what a worker still has; the worker, a zombie now, goes on.
TimeOut(w) ==
  /\ Spend("timeOuts")
  /\ Held(work[w]) # {}
  /\ available' = Offered(One(Held(work[w])))
  /\ UNCHANGED <<stored, sent, dead, memory, overdue>>

\* R7: the answer of a commit is lost, whether the commit has happened or not. R7 broken: that is taken for success.
LoseAnswer(w) ==
  /\ Spend("lostAnswers")
  /\ work[w].at \in {"register", "commit"}
  /\ \/ UNCHANGED stored
     \/ /\ ConditionHolds(Place(w), View(w))
        /\ IF At(w, "register") THEN DoRegister(w) ELSE DoCommit(w)
  /\ IF At(w, "commit") /\ "R7" \in Mutants THEN Committed(w) ELSE LookAgain(w)
  /\ UNCHANGED <<broker, overdue>>

\* A call of steps 7 or 8 fails. The partition is forgotten, the message is put back. R8 broken: a token is consumed although
\* an output could not be sent. "unconfirmed": a deletion that failed is taken for one that was done, against R2.
FailCall(w) ==
  LET job == work[w]
  IN  /\ Spend("failedCalls")
      /\ job.at \in {"publish", "clean", "consume"}
      /\ CASE At(w, "publish") /\ "R8" \in Mutants ->
                /\ work' = [work EXCEPT ![w] = Stage(@, "publish")]
                /\ UNCHANGED cache
           [] At(w, "consume") /\ "unconfirmed" \in Mutants ->
                /\ work' = [work EXCEPT ![w] = Stage([@ EXCEPT !.todo = {}, !.done = @ \cup job.todo], "consume")]
                /\ UNCHANGED cache
           [] OTHER ->
                /\ work' = [work EXCEPT ![w] =
                     [@ EXCEPT !.at = "finish", !.room = "tail", !.verdict = "retry", !.todo = {}, !.clean = {}]]
                /\ cache' = [cache EXCEPT ![Process(w)][Place(w)] =
                     IF job.room = "lane" \/ LaneFree(Process(w), Place(w)) THEN None ELSE @]
      /\ UNCHANGED <<stored, broker, marks, overdue>>

\* A process drops a view.
Evict(q, p) ==
  /\ Spend("evictions")
  /\ LaneFree(q, p) /\ cache[q][p] # None
  /\ cache' = [cache EXCEPT ![q][p] = None]
  /\ UNCHANGED <<stored, broker, marks, work, overdue>>

\* A sweep comes while others work.
SweepEarly(w, p) == Spend("earlySweeps") /\ Visit(w, p)

\* R6: the broker delivers no more and keeps the envelope; the token stays. Somebody may send it again a year later.
DeadLetter(t) ==
  /\ Spend("deadLetters")
  /\ available' = Without(t)
  /\ dead' = dead \cup {t}
  /\ UNCHANGED <<stored, sent, memory, overdue>>

Replay(t) ==
  /\ available' = Offered(One({t}))
  /\ dead' = dead \ {t}
  /\ UNCHANGED <<stored, sent, memory, overdue, budget>>

-----------------------------------------------------------------------------
(* Time: an attempt's deadline passes, after any time. It decides about garbage only. *)

Registrations == UNION {control[p].registrations : p \in Partitions}
Waiting == {r.name : r \in Registrations} \ overdue

IsUnderWay(name) == \E w \in Workers : work[w].blob = name

PassDeadline ==
  /\ \E name \in Waiting : ~IsUnderWay(name) /\ overdue' = overdue \cup {name}
  /\ UNCHANGED <<stored, broker, memory, budget>>

\* The same for an attempt that has not ended: a slow one, or a zombie.
PassDeadlineEarly ==
  /\ Spend("lateAttempts")
  /\ \E name \in Waiting : IsUnderWay(name) /\ overdue' = overdue \cup {name}
  /\ UNCHANGED <<stored, broker, memory>>

-----------------------------------------------------------------------------
(* Everything that can happen *)

Init ==
  /\ control = [p \in Partitions |-> [version |-> 0, pending |-> {}, registrations |-> {}]]
  /\ entries = {Token(m, 0) : m \in Inputs}
  /\ commits = [m \in Messages |-> <<>>]
  /\ blobs = {}
  /\ available = [t \in {Token(m, 0) : m \in Inputs} |-> Copies]
  /\ sent = {Token(m, 0) : m \in Inputs}
  /\ dead = {}
  /\ cache = [q \in Processes |-> [p \in Partitions |-> None]]
  /\ marks = [q \in Processes |-> [p \in Partitions |-> NoMarks]]
  /\ work = [w \in Workers |-> Idle]
  /\ overdue = {}
  /\ budget = [crashes |-> Crashes, timeOuts |-> TimeOuts, lostAnswers |-> LostAnswers, failedCalls |-> FailedCalls,
               evictions |-> Evictions, earlySweeps |-> EarlySweeps, deadLetters |-> DeadLetters,
               overtakings |-> Overtakings, lateAttempts |-> LateAttempts]

Step(w) ==
  \/ Take(w) \/ TakeAhead(w) \/ Enter(w) \/ Flush(w) \/ Sweep(w)
  \/ Load(w) \/ ReadToken(w) \/ Register(w) \/ LookAtClock(w) \/ Upload(w) \/ Prepare(w) \/ Commit(w)
  \/ Publish(w) \/ CleanUp(w) \/ Consume(w) \/ Finish(w)

Fault ==
  \/ \E q \in Processes : Crash(q) \/ \E p \in Partitions : Evict(q, p)
  \/ \E w \in Workers : TimeOut(w) \/ LoseAnswer(w) \/ FailCall(w) \/ \E p \in Partitions : SweepEarly(w, p)
  \/ PassDeadlineEarly
  \/ \E t \in DOMAIN available : DeadLetter(t)
  \/ \E t \in dead : Replay(t)

\* Nothing moves by itself any more.
Quiet ==
  /\ AllIdle
  /\ DOMAIN available = {}
  /\ Waiting = {}
  /\ \A p \in Partitions : ~SweepDue(p) /\ \A q \in Processes : marks[q][p] = NoMarks

\* The only state in which a run may end: any other one without a successor is reported as a deadlock.
Rest == Quiet /\ UNCHANGED vars

Next == (\E w \in Workers : Step(w)) \/ PassDeadline \/ Fault \/ Rest

Spec == Init /\ [][Next]_vars

FairSpec == Spec /\ (\A w \in Workers : WF_vars(Step(w))) /\ WF_vars(PassDeadline)

-----------------------------------------------------------------------------
(* The guarantees of section 2 *)

TypeOK ==
  /\ \A p \in Partitions : control[p].version \in Nat
  /\ \A t \in entries \cup sent \cup dead \cup DOMAIN available : Message(t) \in Messages /\ SequenceOf(t) \in Nat
  /\ \A t \in DOMAIN available : available[t] \in 1..Copies
  /\ \A w \in Workers : work[w].room \in {"none", "lane", "tail"}
  \* One processing at a time for each partition and process.
  /\ \A v, w \in Workers : v # w /\ ProcessOf[v] = ProcessOf[w] /\ work[v].room = "lane" /\ work[w].room = "lane"
                             => work[v].partition # work[w].partition

IsCommitted(m) == commits[m] # <<>>
Parents(m) == {n \in Messages : m \in Sends[n]}

\* 1: a state change commits at most once, for ever.
AtMostOnce == \A m \in Messages : Len(commits[m]) <= 1

\* 3: nothing is visible before its commit.
NoGhosts == \A t \in sent : \A n \in Parents(Message(t)) : IsCommitted(n)

\* 4: what is published comes from the attempt that committed, and all of it is there.
OneAttempt ==
  /\ \A t \in sent : \A n \in Parents(Message(t)) :
       IsCommitted(n) => \E i \in 1..Len(commits[n]) : commits[n][i].sequence = SequenceOf(t)
  /\ \A m \in WithBlob : \A i \in 1..Len(commits[m]) : commits[m][i].blob \in blobs

\* Why a token in an outbox can't be lost: it goes only when its message is committed (not a guarantee, but its reason).
TokensAreKept ==
  \A m \in Messages : ~IsCommitted(m) /\ (m \in Inputs \/ \E n \in Parents(m) : IsCommitted(n))
    => \E t \in entries : Message(t) = m

\* 2, where nothing moves any more: what was accepted is committed. Dead letters keep their token instead.
NothingLost ==
  Quiet => \A m \in Messages :
    \/ IsCommitted(m)
    \/ \E t \in dead : Message(t) = m /\ t \in entries
    \/ m \notin Inputs /\ \A n \in Parents(m) : ~IsCommitted(n)

\* 5: when it is quiet, there is nothing but the state, and tokens of dead letters.
Bounded ==
  Quiet =>
    /\ entries \subseteq {t \in dead : ~IsCommitted(Message(t))}
    /\ \A p \in Partitions : control[p].pending = {} /\ control[p].registrations = {}
    /\ blobs = {commits[m][1].blob : m \in {n \in WithBlob : IsCommitted(n)}}

\* 2, under weak fairness of every worker. (No dead letters in these worlds: a broker that keeps delivering.)
AtLeastOnce == \A m \in Messages : <>IsCommitted(m)

EventuallyQuiet == <>[]Quiet

=============================================================================
