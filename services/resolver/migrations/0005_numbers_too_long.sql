-- Numbers of more than 15 digits were kept, with which no event can be read.
UPDATE contacts SET phone = NULL, phone_problem = 'the number is too long' WHERE length(phone) > 16;
