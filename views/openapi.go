package views

import _ "embed"

// openAPI describes this API; a test compares it with the routes and their parameters.
//
//go:embed openapi.json
var openAPI []byte

func (s *Server) getOpenAPI(*call) (*answer, error) { return withTag(openAPI), nil }
