package admin

import "github.com/tollkeeper-authz/tollkeeper/authz"

// pathFaults tell an operator why a path is refused, and what to do if the servers behind the proxy are not like that.
var pathFaults = map[authz.PathFault]string{
	authz.PathNoMethod:         "The request has no method.",
	authz.PathNotAbsolute:      "It does not begin with a slash.",
	authz.PathUnreadable:       "An escape is broken, a # is in it, or it is not UTF-8.",
	authz.PathDotSegment:       "A segment is . or .., written in any way: some servers take it and the segment before it away.",
	authz.PathBackslash:        "Some servers read a backslash as a slash.",
	authz.PathControlCharacter: "Some servers stop reading at a control character.",
	authz.PathMatrix: "Some servers cut a segment at a semicolon, others do not: set paths.matrix to strip or to keep, whichever all servers " +
		"behind the proxy do.",
	authz.PathEncodedSlash: "Some servers read %2F as a slash: set paths.encoded_slash to keep if no server behind the proxy does.",
	authz.PathRepeatedSlash: "Some servers merge repeated slashes, and paths.repeated_slash is refuse: set it to merge or to keep, whichever all " +
		"servers behind the proxy do.",

	authz.PathDoubleEncoded:  "A server that decodes it twice serves another route.",
	authz.PathLooseEnding:    "A server that cuts dots and spaces at the end of a segment, as Windows does, serves another route.",
	authz.PathCutShort:       "A server that ends the path at an encoded ? or # serves another route.",
	authz.PathCompatible:     "A server that replaces letters by their compatible forms (Unicode NFKC) serves another route.",
	authz.PathMethodCase:     "A server that reads the method in capital letters serves another route.",
	authz.PathMethodOverride: "A header or a parameter names another method, and a server that follows it serves another route.",
	authz.PathURLOverride:    "A header names another path, and a server that follows it serves another route.",
}
