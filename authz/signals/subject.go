package signals

import "strings"

// subject is whom an event is about, as far as tokens can be found by it; what is not named is empty. Formats that say
// who somebody is without his id at the issuer (email, phone_number, account) name nothing here: no token has to carry
// such a thing, and it may pass to somebody else.
type subject struct {
	user    string // a sub of the issuer
	session string // a sid of the issuer
	token   string // a jti of the issuer
	// opaque says that the user stands alone and in the format opaque. An event about a session names the session in
	// that way just as well (CAEP 1.0 section 3.1, first example).
	opaque bool
}

// readSubject reads a subject identifier (RFC 9493 section 3, SSF 1.0 section 3). An issuer speaks for its own subjects
// only: one that is somebody else's is refused, whatever its format.
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

// isComplex reports whether a subject is named by its parts. Drafts wrote the parts without a format.
func isComplex(id map[string]any) bool {
	if format := id["format"]; format != nil {
		return format == "complex"
	}
	_, user := id["user"].(map[string]any)
	_, session := id["session"].(map[string]any)
	return user || session
}

// readComplex reads a subject that is named by its parts. Of these the user and the session count. Whoever matches those
// and not the others, such as a device, is cut off too, because no token says so much of itself.
func readComplex(id map[string]any, issuer string) (subject, error) {
	var out subject
	for _, v := range id {
		if part, ok := v.(map[string]any); ok {
			if err := ownedBy(part, issuer); err != nil {
				return subject{}, err
			}
		}
	}
	// A session is named as a user is: by an opaque id, or by an id beside its issuer.
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
		return subject{}, invalid("the subject does not say whose it is")
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

// formatOf returns the format of a subject. Drafts called it subject_type and wrote iss-sub, and the example of RFC 8935
// still does.
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

// ownedBy refuses a subject that belongs to another issuer.
func ownedBy(id map[string]any, issuer string) error {
	if iss := id["iss"]; iss != nil && iss != issuer {
		return invalid("the subject is of another issuer than the event")
	}
	return nil
}

// required returns a member that has to be there and to name something.
func required(members map[string]any, name string) (string, error) {
	s, err := identifier(members, name)
	if s == "" && err == nil {
		err = invalid("%s is missing from the subject", name)
	}
	return s, err
}
