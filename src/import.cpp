#include <quern/import/importer-inl.hpp>
