package signals

import "strings"

// subject is the ids in a subject identifier that can match tokens; absent ids are empty. Formats without an id of the issuer
// (email, phone_number, account) give no ids: tokens need not have an address or a number, and these may pass to another
// person.
type subject struct {
	user    string // a sub of the issuer
	session string // a sid of the issuer
	token   string // a jti of the issuer
	// opaque says that user comes from a simple identifier in the format opaque. It may be a session instead: events about
	// sessions name them like this as well (CAEP 1.0 section 3.1, first example).
	opaque bool
}

// readSubject reads a subject identifier (RFC 9493 section 3, SSF 1.0 section 3). An issuer may name only its own subjects;
// another issuer's subject is refused in every format.
func readSubject(v any, issuer string) (subject, error) {
	id, ok := v.(map[string]any)
	if !ok {
		return subject{}, invalid("the subject must be an object")
	}
	if isComplex(id) {
		return readComplex(id, issuer)
	}
	return readSimple(id, issuer)
}

// isComplex reports whether an identifier has parts. Drafts wrote the parts without a format.
func isComplex(id map[string]any) bool {
	if format := id["format"]; format != nil {
		return format == "complex"
	}
	_, user := id["user"].(map[string]any)
	_, session := id["session"].(map[string]any)
	return user || session
}

// readComplex reads an identifier with parts. Only user and session count. The other parts, such as a device, narrow
// the subject down, but tokens do not have them. So the event revokes more than it names, never less.
func readComplex(id map[string]any, issuer string) (subject, error) {
	var out subject
	for _, v := range id {
		if part, ok := v.(map[string]any); ok {
			if err := ownedBy(part, issuer); err != nil {
				return subject{}, err
			}
		}
	}
	// A part for a session has the form of a part for a user: an opaque id, or an id with its issuer.
	for name, to := range map[string]*string{"user": &out.user, "session": &out.session} {
		v := id[name]
		if v == nil {
			continue
		}
		part, ok := v.(map[string]any)
		if !ok {
			return subject{}, invalid("the %s of the subject must be an object", name)
		}
		s, err := readSimple(part, issuer)
		if err != nil {
			return subject{}, err
		}
		*to = s.user
	}
	return out, nil
}

func readSimple(id map[string]any, issuer string) (subject, error) {
	if err := ownedBy(id, issuer); err != nil {
		return subject{}, err
	}
	format, err := formatOf(id)
	if err != nil {
		return subject{}, err
	}
	if id["iss"] == nil && (format == "iss_sub" || format == "jwt_id") {
		return subject{}, invalid("iss is missing from the subject")
	}
	var out subject
	switch format {
	case "iss_sub":
		out.user, err = required(id, "sub")
	case "opaque":
		out.opaque = true
		out.user, err = required(id, "id")
	case "jwt_id":
		out.token, err = required(id, "jti")
	}
	return out, err
}

// formatOf returns the format of an identifier. Drafts, and the example of RFC 8935, call it subject_type and write iss-sub.
func formatOf(id map[string]any) (string, error) {
	if format, err := identifier(id, "format"); format != "" || err != nil {
		return format, err
	}
	format, err := identifier(id, "subject_type")
	if format == "" && err == nil {
		err = invalid("the subject has no format")
	}
	return strings.ReplaceAll(format, "-", "_"), err
}

// ownedBy refuses a subject of another issuer.
func ownedBy(id map[string]any, issuer string) error {
	if iss := id["iss"]; iss != nil && iss != issuer {
		return invalid("the subject belongs to another issuer than the event")
	}
	return nil
}

// required returns the id in a member that must be present.
func required(members map[string]any, name string) (string, error) {
	s, err := identifier(members, name)
	if s == "" && err == nil {
		err = invalid("%s is missing from the subject", name)
	}
	return s, err
}
