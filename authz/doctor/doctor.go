// Package doctor is named checks that an operator can have run: what each looks at, whether that is as it should be,
// and how to mend it if it is not. A check only looks. What it looks at is given to it, so that the same checks are run
// by a server on what it has open and by the command line on what lies on the disk.
package doctor

import (
	"context"
	"fmt"
)

// Check is one thing to look at.
type Check struct {
	Name  string // short, for people and scripts
	Looks string // what it looks at, as a sentence that is true when all is well
	Mend  string // what to do if it is not
	// Run returns nil if all is well, and else what is wrong.
	Run func(ctx context.Context) error
	// Guards says that the checks after this one are not to be run unless it finds that all is well.
	Guards bool
}

// State is the outcome of a check. The zero State is none, and is not well.
type State string

// The states.
const (
	StateOK      State = "ok"
	StateWrong   State = "wrong"
	StateSkipped State = "skipped" // not looked at, because of what was found before
)

// Finding is what a check found.
type Finding struct {
	Check string `json:"check"`
	Looks string `json:"looks"`
	State State  `json:"state" enum:"ok,wrong,skipped"`
	Wrong string `json:"wrong,omitempty" doc:"What is wrong."`
	Mend  string `json:"mend,omitempty" doc:"What to do about it."`
}

// Report is the findings of several checks.
type Report struct {
	OK       bool      `json:"ok" doc:"Everything was looked at, and all is well."`
	Findings []Finding `json:"findings"`
}

// Run runs checks one after the other. A report without findings is not OK: nothing was looked at.
func Run(ctx context.Context, checks []Check) Report {
	r := Report{OK: len(checks) > 0, Findings: make([]Finding, 0, len(checks))}
	var stopped *Check
	for i := range checks {
		c := &checks[i]
		f := Finding{Check: c.Name, Looks: c.Looks}
		if stopped != nil {
			f.State, f.Wrong = StateSkipped, fmt.Sprintf("not looked at, because of %q", stopped.Name)
		} else if err := run(ctx, c); err != nil {
			f.State, f.Wrong, f.Mend = StateWrong, err.Error(), c.Mend
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

// run runs one check. One that panics or is not run to its end has not found that all is well.
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
