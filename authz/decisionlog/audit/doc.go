// Package audit proves from decision logs how many of the units that were stranded with dead nodes were not spent.
//
// A node numbers its charges from 1, and writes each with its number into its log (decisionlog.Line.Seq). If none is missing, the
// sum of the charges of a bucket is what the node spent of it. The rest of what the ledger had granted to the node comes back.
//
// Three things are never proven, and the audit errs to the side of "spent" in each:
//
//   - That a log is complete at its end. A node that is killed loses the lines that were not written yet, those of a few
//     milliseconds: see decisionlog.Log. In 12 kills at 12,000 charges a second, 0 to 8 ms of answered checks were lost. A
//     machine that fails loses what its file system had not written, up to half a minute. So what may have been charged there
//     is kept: at least the largest charge of the bucket and what it was charged within the margin before the end, and once
//     more the largest charge for each number that is missing within the margin. If the node had reported more than the log
//     has, at least as much again is kept. All that was reported and is not in the log, beyond what these margins keep, must be
//     no more than the node charged of the limit, of all holders, within the margin before the end: else more than the end is
//     missing, and the log is refused.
//   - Which of two limits of one name was charged, if plans count them by other units or periods. Both are.
//   - That a charge was not given back later, as when Envoy asks twice and the second answer is a denial. It counts as spent.
//
// Read audit.go first, then finding.go.
package audit
