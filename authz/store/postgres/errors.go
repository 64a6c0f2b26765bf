package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The SQLSTATEs that this package reacts to.
const (
	stateReadOnly       = "25006" // the server was a primary and is a standby now
	stateBadText        = "22021" // bytes that are no text, such as NUL
	stateBadEscape      = "22P05"
	stateCheck          = "23514" // such as a name that is too long
	stateSerialization  = "40001"
	stateDeadlock       = "40P01"
	stateTooLarge       = "54000" // such as an index entry
	stateNoPrivilege    = "42501"
	stateNoTable        = "42P01"
	stateNoSchema       = "3F000"
	stateNoColumn       = "42703"
	stateNoFunction     = "42883"
	stateNoFeature      = "0A000"
	stateUniqueConflict = "23505"
	stateTooMany        = "53300" // connections
	stateLockTimeout    = "55P03"
)

// sqlState returns the SQLSTATE of an answer of the server in err's chain, "" if there is none.
func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// wrap gives an error a kind. Everything that is not a refusal of ours is KindUnavailable: a caller must not take an error of the
// database for an answer.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	var ours *authz.Error
	if errors.As(err, &ours) {
		return err
	}
	switch sqlState(err) {
	case stateBadText, stateBadEscape, stateCheck, stateTooLarge:
		return authz.Errorf(authz.KindInvalid, "PostgreSQL cannot keep this: %w", err)
	}
	return authz.Errorf(authz.KindUnavailable, "PostgreSQL: %w", flat(err))
}

// flatError is an error whose text has one line.
type flatError struct {
	text string
	err  error
}

func (e *flatError) Error() string { return e.text }
func (e *flatError) Unwrap() error { return e.err }

// flat writes the error of a connection on one line: pgx has one for each address that was tried, and names some twice.
func flat(err error) error {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) || connect.Config == nil {
		return err
	}
	var tried []string
	for line := range strings.Lines(connect.Unwrap().Error()) {
		if line = strings.TrimSpace(line); !slices.Contains(tried, line) {
			tried = append(tried, line)
		}
	}
	text := fmt.Sprintf("no connection as user %q to database %q: %s", connect.Config.User, connect.Config.Database, strings.Join(tried, "; "))
	return &flatError{text, err}
}

// rolledBack reports whether the server undid the whole transaction and asks to run it again.
func rolledBack(err error) bool {
	state := sqlState(err)
	return state == stateSerialization || state == stateDeadlock
}
