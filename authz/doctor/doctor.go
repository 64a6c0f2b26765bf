// Package doctor runs named checks for an operator and reports what each found and what to do about it. Checks change nothing.
// A check is made with the things that it looks at: a server passes its open stores, and the command line opens the files on
// disk. Checks are defined next to the code that they check, such as the checks of the data file in store/bolt.
package doctor

import (
	"context"
	"errors"
	"fmt"
)

// Check is one thing to look at.
type Check struct {
	Name   string // short, for people and scripts
	Claim  string // a sentence that is true when all is well
	Remedy string // what to do if it is not true
	// Run returns nil if all is well, and else what is wrong.
	Run func(ctx context.Context) error
	// Guards reports that the checks after this one run only if this one succeeds.
	Guards bool
}

// State is the outcome of a check. The zero State is not StateOK.
type State string

// The states.
const (
	StateOK      State = "ok"
	StateWrong   State = "wrong"
	StateSkipped State = "skipped" // not run, because an earlier check that guards it failed
)

// Finding is what a check found.
type Finding struct {
	Check  string `json:"check"`
	Claim  string `json:"looks"`
	State  State  `json:"state" enum:"ok,wrong,skipped"`
	Wrong  string `json:"wrong,omitempty" doc:"What is wrong."`
	Remedy string `json:"mend,omitempty" doc:"What to do about it."`
}

// Report is the findings of several checks.
type Report struct {
	OK       bool      `json:"ok" doc:"Everything was looked at, and all is well."`
	Findings []Finding `json:"findings"`
}

// Run runs checks one after the other. A report without findings is not OK, because nothing was checked.
func Run(ctx context.Context, checks []Check) Report {
	r := Report{OK: len(checks) > 0, Findings: make([]Finding, 0, len(checks))}
	var stopped *Check
	for i := range checks {
		c := &checks[i]
		f := Finding{Check: c.Name, Claim: c.Claim}
		if stopped != nil {
			f.State, f.Wrong = StateSkipped, fmt.Sprintf("not looked at, because of %q", stopped.Name)
		} else if err := run(ctx, c); err != nil {
			f.State, f.Wrong, f.Remedy = StateWrong, err.Error(), c.Remedy
			if c.Guards {
				stopped = c
			}
		} else {
			f.State = StateOK
		}
		r.OK = r.OK && f.State == StateOK
		r.Findings = append(r.Findings, f)
	}
	return r
}

// run runs one check. A check that panics or is cut short fails.
func run(ctx context.Context, c *Check) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the check broke: %v", p)
		}
	}()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not looked at: %w", err)
	}
	return c.Run(ctx)
}

// Clock is the finding that a server does not trust its clock, and why.
func Clock(why string) Check {
	return Check{
		Name: "clock", Claim: "The clock runs as time does.",
		Remedy: "Set the clock right. If it is right, leave it: it is trusted again once it has run for long enough.",
		Run:    func(context.Context) error { return errors.New(why) },
	}
}
