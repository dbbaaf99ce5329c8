"""What help says: the keys, and each figure of the page it was asked on. Loaded when it is first asked for."""

KEYS = """\
[b]Keys[/b]
  [b]1[/b] to [b]{last}[/b]  The pages, as the line at the top names them; or click there.
  [b]p[/b]  Pause: take no new work; what runs is finished.
  [b]n[/b]  Pause now: also end what runs. Asks first.
  [b]r[/b]  Resume: take work again.
  [b]t[/b]  Dark or light.   [b]Ctrl+P[/b]  All commands by name.
  [b]q[/b]  Leave this screen. The node goes on; [b]potluck down[/b] ends it.

"""

FIGURES = {
    "overview": """\
[b]This machine[/b]
  What you lend, and how much of it is in use. Workers that wait
  unused do not count: they make room as soon as it is needed.
  Of each GPU: its load as a bar and in percent, temperature, power,
  memory in use of all, the load over the last hour (right is now),
  and who uses it: caller and function, or its state. Where there is
  room, its load over a day. [b]potluck history[/b] shows a week.

[b]Workers[/b]
  Each runs one function for one caller, in a sandbox. Then its
  state, and for how long: [b]starting[/b] until the function is loaded,
  [b]running[/b] an input, or [b]ready, unused[/b] until it is ended.

[b]Calls from here[/b]
  Your own calls: inputs done of those sent so far, inputs a second
  over the last few seconds, and what the call waits for.

[b]Peers[/b]
  Machines of your mesh. [b]2 free[/b]: two workers could start there now;
  [b]busy[/b]: none; [b]paused[/b]: by its owner. Then what it lends, how far
  away it is, and why it is not used, if so.

[b]Ledger[/b]
  Time that workers were leased, from receipts that the provider,
  and in the usual case the caller too, has signed. [b]Given[/b] to
  others, [b]used[/b] from others; balance is given less used. [b]Today[/b]
  began at midnight UTC, as the ledger's days do.
  [b]potluck ledger verify[/b] checks every receipt on this machine.
""",
    "calling": """\
[b]Calls from here[/b]
  Your own calls: inputs done of those sent so far, inputs a second
  over the last few seconds, and what the call waits for.

  [b]↑[/b] and [b]↓[/b] choose one, and below is what it prints, as it comes
  ([b]potluck app logs[/b]). [b]l[/b] cancels it, [b]x[/b] stops its app, each after
  a question ([b]potluck call cancel[/b], [b]potluck app stop[/b]).

[b]Who runs them[/b]
  For each call and each peer that is known: what it runs of the
  call, or why it runs nothing of it.

[b]Running here[/b]
  What this machine runs for others, one worker a line: its function,
  who called it, its state and since when. What others' functions
  print goes to their callers alone, and is not shown here.

[b]Lately[/b]
  What changed while this screen was open, as [b]potluck watch[/b] tells
  it; [b]potluck log[/b] has the node's own log.
""",
    "mesh": """\
[b]now[/b]
  [b]2 free[/b]: two workers could start there now; [b]busy[/b]: none;
  [b]paused[/b]: by its owner; [b]not here[/b]: known from before.

[b]away[/b]
  A round trip in milliseconds; the bar is full at 300 ms. Nearest first.

[b]warm[/b], [b]images[/b]
  Functions that have a worker there and would begin at once, and
  images that it holds, by its own word.

[b]trust[/b]
  [b]owner[/b], [b]lab[/b] and [b]known[/b] peers are believed. Of a [b]stranger[/b] only data
  is taken, and its results are verified where you ask for that.
  Below, [b]Why[/b] says what made it so: a setting, a mesh, or nothing.

[b]reputation[/b]
  From 0 to 1: how likely its next result is right, from this node's
  own verdicts, which fade; nobody else's word counts.
  [b]potluck mesh evidence[/b] shows what they rest on.
""",
    "images": """\
[b]The disk[/b]
  What images and volumes take of the room that they may have (setting
  [b]store_gib[/b]), what is free, and what would go first if room were
  needed: never what is in use or pinned.

[b]Images[/b]
  [b]Size[/b] of all files, and what the disk would win back without this
  image [b]alone[/b]: images share what they have in common.
  [b]↑[/b] and [b]↓[/b] choose one; [b]d[/b] deletes it, [b]i[/b] pins it, or lets go of
  it, [b]c[/b] clears what no image needs, each after a question
  ([b]potluck image rm|pin|unpin|prune[/b]).
  [b]Pinned[/b]: snapshots and the like, kept until their time is over.

[b]Volumes[/b]
  The newest version of each, and on how many other peers it is
  ([b]potluck volume list[/b]). [b]u[/b] looks again.
""",
    "account": """\
[b]Altogether[/b]
  Time that workers were leased: [b]given[/b] to others, [b]used[/b] from others.
  Balance is given less used.

  [b]Verified[/b]: this screen has fetched the journal from the node and
  checked each signature, and that nothing is missing in between,
  when the page was opened. [b]u[/b] does it again.

[b]Each day[/b]
  By the day on which leases ended (UTC), the last fourteen that had
  any. Only what both sides signed counts.

[b]With each peer[/b]
  The largest first, and the inputs run for it and by it.

[b]The newest receipts[/b]
  Who gave or used what; [b]by one[/b]: the other side has not signed.
""",
    "policy": """\
[b]Now[/b]
  Every reason why this machine, or one of its GPUs, takes no new work;
  behind the arrow what would change it. In brackets: for how long.

[b]Settings that count[/b]
  As the node goes by them, presets included. [b]e[/b] edits the table
  [b]policy[/b] of config.toml: below the text stands what the node would
  do under it, and what is wrong with it. [b]Ctrl+S[/b] saves, and it is in
  force at once; [b]Esc[/b] leaves ([b]potluck policy show|set|edit[/b]).

[b]What is known[/b]
  What the node sees of this machine. [b]potluck policy simulate[/b] says what
  it would do if that were otherwise.
""",
    "doctor": """\
  What [b]potluck doctor[/b] finds: [b]✗[/b] something cannot be done at all,
  [b]![/b] works, with less, [b]✓[/b] good. Behind the arrow is the command that
  improves it. [b]u[/b] looks again, which takes some seconds.
""",
}


def explained(page: str, last: str) -> str:
    """The help of a page, as markup; `last` is the key of the last page."""
    return KEYS.format(last=last) + FIGURES[page]
