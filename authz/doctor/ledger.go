package doctor

import (
	"context"
	"errors"
)

// LedgerFile is the file in which keys, revocations and quotas are kept.
type LedgerFile interface {
	// CheckPart returns what is wrong with a part of the file. Parts that it does not know are an error.
	CheckPart(ctx context.Context, part string) error
}

const (
	restore = "Stop the server, and restore tollkeeper.db from a backup."
	report  = "Keep a copy of tollkeeper.db and report this: no command of tollkeeper leads there. Restore a backup to go on from."
)

// Ledger checks a data file, part by part.
func Ledger(f LedgerFile) []Check {
	checks := []Check{
		{Name: "pages", Looks: "Every page of the file is sound, and in one place only.", Mend: restore, Guards: true},
		{Name: "format", Looks: "The file is of the format that this version reads.", Guards: true,
			Mend: "Use the version of tollkeeper that wrote the file, or restore a backup."},
		{Name: "accounts", Looks: "Every account can be read, under its own id.", Mend: restore},
		{Name: "keys", Looks: "Every key can be read, has its account, and is found by its digest.", Mend: restore},
		{Name: "revocations", Looks: "Every revocation can be read, and is found by its revision.", Mend: restore},
		{Name: "books", Mend: report,
			Looks: "In every book granted = spent + outstanding + stranded + returned, and granted - returned <= allowed + forgiven."},
		{Name: "settlements", Looks: "Every settlement can be read, and is forgotten when its time comes.", Mend: restore},
		{Name: "journal", Looks: "Every credit and reset can be read, so that none counts twice.", Mend: restore},
	}
	for i := range checks {
		c := &checks[i]
		name := c.Name
		c.Run = func(ctx context.Context) error { return f.CheckPart(ctx, name) }
	}
	return checks
}

// Clock is the finding that a server does not believe its clock, and why.
func Clock(why string) Check {
	return Check{
		Name: "clock", Looks: "The clock goes as time does.",
		Mend: "Set the clock right. If it is right, leave it: once it has gone on for long enough, it is believed.",
		Run:  func(context.Context) error { return errors.New(why) },
	}
}
