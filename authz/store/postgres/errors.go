package postgres

import (
	"errors"

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
	stateUniqueConflict = "23505"
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
	return authz.Errorf(authz.KindUnavailable, "PostgreSQL: %w", err)
}

// rolledBack reports whether the server undid the whole transaction and asks to run it again.
func rolledBack(err error) bool {
	state := sqlState(err)
	return state == stateSerialization || state == stateDeadlock
}
